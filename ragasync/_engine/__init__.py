"""
The engine: workers that call a function for each item of one lazy source.

    job_run.py          JobRun: a whole job with its result, its progress and its stats
    stream.py           stream_outcomes: a run whose outcomes are read one by one; their buffer
    request_batcher.py  RequestBatcher: a run fed by callers whose items share batches
    run.py              execute, Run: opens a run, its workers and their fast path, closes it
    controls.py         RunControls: pause, resume, resize, rate, stop; how the run is
    scheduler.py        Scheduler: what a worker does next, who is woken, what interrupts
    workers.py          WorkerPool: spawns, wakes and retires tasks; TaskState: what calls leave
    item_sources.py     ItemSource: checks and reads an iterable, or an async one, lazily
    item_queue.py       QueuedItems: items that callers push, or a task or thread that reads ahead
    batching.py         Batcher: fills calls by count, weight and time
    attempts.py         CallRunner: waits for the limits, makes a call, hands on how it ended
    error_handling.py   ErrorHandler: what follows a call: record, retry, split, fail, stop
    detached_items.py   DetachedItems: items of a pipeline in progress without a worker
    replies.py          Reply, Begun: what these items wait for
    retry_queue.py      PendingCall, RetryQueue: calls that wait for their next attempt
    recorder.py         Recorder: outcomes to an OutcomeSink and the journal; limits on errors
    run_journal.py      RunJournal: an open journal; Reader: skips the items that it has

A worker asks the Scheduler what to do next. For plain calls it goes on the fast path of run.py: it
takes an item from the ItemSource, calls, and writes the value to the sink, until it is interrupted.
Otherwise a Batcher makes a PendingCall of some items, the CallRunner calls, and the ErrorHandler
records the outcome or puts the call into the RetryQueue, from where the Scheduler takes it again.
A pipeline may begin an item instead, and call back: it is one of the DetachedItems until then.
"""
