"""What a retry policy makes of an error: its verdict, and the wait that the error names."""

import math

from ragasync import FATAL, AsyncRetry


def verdict_on(error: Exception) -> object:
    """Return True for an error that is retried, False for a permanent one, or FATAL."""
    policy = AsyncRetry(1, 0.0, jitter=None, max_retry_after=math.inf)
    decided = policy.decide(error, retries=0, elapsed=0.0)
    return FATAL if decided is FATAL else decided is not None


def wait_named_by(error: Exception) -> object:
    """Return the seconds that an error says to wait; 0.0 if it says nothing."""
    policy = AsyncRetry(1, 0.0, jitter=None, max_retry_after=math.inf, retry_on=Exception)
    return policy.decide(error, retries=0, elapsed=0.0)
