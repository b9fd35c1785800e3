"""
The bridge from sync code to coroutines, and the way of an interrupt through nested calls.

    run_async.py       run_async: on a background loop, nested on this thread's loop, in a browser
    coroutine_call.py  CoroutineCall: an awaitable that runs on a loop while a thread waits for it
    interrupts.py      InterruptibleWait: a thread waits, and Ctrl-C and the stop button still work
    blocking_calls.py  the tree of blocking calls, which cancels the innermost first

run_async picks a background loop that no call around it blocks, wraps the coroutine in a
CoroutineCall that becomes a task there, and blocks its own thread in an InterruptibleWait. Each
wait is a node in the tree of blocking calls; an interrupt, a timeout or the cancellation of a call
around it is passed down to the innermost calls, and back up as each of them ends. Then the value or
the error is taken out of the CoroutineCall, and changed context variables are copied back.
"""
