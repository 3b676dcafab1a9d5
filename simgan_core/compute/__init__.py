"""Compute settings, parallel map, process groups, CUDA graphs and memory settings."""
