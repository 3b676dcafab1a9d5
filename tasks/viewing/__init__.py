"""Datasets as people see them: sheets, overlays, galleries."""
