"""Load, chunk, embed and store documents on the engine."""
