"""Comparisons of training sets on real test images: arms, estimates, results, reports."""
