"""Measures of refined images: label drift, realism, alignment, and the gate."""
