"""What is to be known of executors: who died on them, and how to make another alike."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Executor

from ragasync.foreign_errors import is_a


def is_worker_crash(error: BaseException) -> bool:
    """Return whether an executor says with this that the worker of a call has ended."""
    if is_a(error, BrokenExecutor):
        return True
    kind = type(error)  # Dask tells so after a few workers that a task has cost
    return kind.__name__ == "KilledWorker" and kind.__module__.startswith("distributed.")


def names_its_functions(executor: Executor) -> bool:
    """Return whether functions go by name: an initializer sets globals in modules of that name."""
    return getattr(executor, "_initializer", None) is not None


def clone_executor(executor: Executor, workers: int | None = None) -> Executor | None:
    """
    Return a pool of processes like this one, or None if it is another kind of executor.

    A pool of processes refuses everything once one of them died, loky's too. Its settings are
    kept only in private attributes. Any other executor may know how to mend itself.

    Args:
        executor: made by its user.
        workers: how many processes, if not as many.
    """
    from concurrent.futures import ProcessPoolExecutor  # brings multiprocessing: not at import

    workers = workers or getattr(executor, "_max_workers", None)
    initializer = getattr(executor, "_initializer", None)
    arguments = getattr(executor, "_initargs", ())
    if isinstance(executor, ProcessPoolExecutor):
        context = getattr(executor, "_mp_context", None)
        tasks = getattr(executor, "_max_tasks_per_child", None)
        return ProcessPoolExecutor(
            workers, context, initializer, arguments, max_tasks_per_child=tasks
        )
    if type(executor).__module__.startswith("loky."):
        import loky

        pool: Executor = loky.ProcessPoolExecutor(
            workers,
            context=getattr(executor, "_context", None),
            initializer=initializer,
            initargs=arguments,
        )
        return pool
    return None
