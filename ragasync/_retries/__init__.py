"""
Retries: the policy that a user sets, the retry loop, and the classification of errors.

    policy.py       AsyncRetry, retry_async, RetryEvent
    loop.py         the retry loop, around a function and as a block; what it says on giving up
    classify.py     retry, split the batch, stop the job (FATAL), or slow down; `retry_on`
    http.py         status, headers and body in any client's error
    retry_after.py  Retry-After in headers, RetryInfo and messages; durations: "1m30s", "250ms"

A decorated function, a call and a block run in the retry loop. Each error, or the error that stands
for a rejected value, goes to `AsyncRetry.decide`, which asks
`default_retry` (or the user's `retry_on`) for a verdict and adds the back-off and Retry-After. The
engine has a loop of its own, because its retries wait in a queue, and uses the same `decide`.
"""
