"""Simulators that need files of their own."""
