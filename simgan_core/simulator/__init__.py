"""Built-in simulators of eyes and hands."""
