"""What became of each item, and of them all."""
