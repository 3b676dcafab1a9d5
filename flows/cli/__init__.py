"""The `simgan` command."""
