"""The method itself: what is computed, on torch, numpy and pydantic alone."""
