"""Zarr datasets, and readers of source formats."""
