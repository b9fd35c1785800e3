"""
Calls of a run's function: on the loop, on threads, or in groups of items on an executor.

    caller.py          Caller: how a run calls its function; StuckCalls: calls that cannot end
    timeouts.py        DeadlineWatch: the time limit of attempts
    threads.py         DaemonThreadPool: the threads on which sync functions run
    executors.py       ResilientExecutor: survives the crash of a worker; DaskWatch
    groups.py          ItemGroup and GroupResult: several items in one hand-over to an executor
    pickling.py        pickling by value; placeholders for errors that cannot be unpickled
    remote_errors.py   errors on their way back from a worker process

The engine asks the Caller for a call of one item, of a batch or of a group. An async function is
awaited in the worker's own task, a sync one runs on the DaemonThreadPool, and for an executor the
items are put into an ItemGroup, pickled if it leaves the process, and run by `run_group` on a
worker. The value or the error comes back to the task that made the call; an attempt past its
deadline is cancelled, and a call that cannot be interrupted is kept as an AbandonedCall.
"""
