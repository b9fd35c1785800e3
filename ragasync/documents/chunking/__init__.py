"""How a text is cut, and where in its document each piece stands."""
