"""How a function is called: on the loop, on threads, on an executor, and for how long."""
