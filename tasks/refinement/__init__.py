"""Bulk refinement and its report."""
