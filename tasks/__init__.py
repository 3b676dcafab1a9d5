"""Prefect tasks: open, compute, write; joins simgan_core with storage."""
