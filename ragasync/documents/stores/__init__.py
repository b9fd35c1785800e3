"""Where embedded chunks are kept, and how they are found again."""
