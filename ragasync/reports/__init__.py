"""Results as tables, as words and as HTML."""
