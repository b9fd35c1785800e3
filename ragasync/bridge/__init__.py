"""From sync code to a coroutine: run_async, its loops, and how an interrupt reaches them."""
