"""Processes: children, their path, servers they need, cancellation."""
