"""Prefect tasks: how one step is run; the place that joins core and storage."""
