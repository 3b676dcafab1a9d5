"""Shared by all stages: tracking, policies, progress, cancellation, devices, paths, ids."""
