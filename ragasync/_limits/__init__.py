"""
Limits: how many calls start per second, and how many run concurrently.

    limiter.py   RateLimiter, what other limiters must offer, checks of rates and pauses
    combined.py  CombinedLimiter: all rate limits of a job, acquired in one step
    acquire.py   takes from several wait queues in one step; requeues, refunds, cancellation
    queue.py     WaitQueue: first come, first served, on any number of loops
    bucket.py    the arithmetic of a token bucket, and of a window; weights of calls, checked
    adaptive.py  max_concurrency="auto": ConcurrencyLimit, ConcurrencyController
    samples.py   the latencies and errors by which a concurrency limit is judged

A call asks its job's CombinedLimiter. If every bucket grants it and nobody waits, it takes from
them and goes on; otherwise a Waiter joins the WaitQueue of each bucket. A timer on each loop fires
when the next waiter is due, grants it in all its queues in one step, and wakes its task.
"""
