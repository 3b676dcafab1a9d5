"""The method: networks, training, quality measures; torch, numpy and pydantic alone."""
