"""Prefect set-up, services and diagnosis."""
