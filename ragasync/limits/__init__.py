"""How often: rate limiters, the line before each, and the gate of a job before all of them."""
