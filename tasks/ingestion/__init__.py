"""Sources to datasets."""
