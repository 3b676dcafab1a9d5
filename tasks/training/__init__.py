"""Refiner training: data, process groups, metrics, reports."""
