"""Training loops of the downstream estimators, and their predictions."""
