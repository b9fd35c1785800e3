"""The engine: a window of workers over one lazy source, and what it needs to run and stop."""
