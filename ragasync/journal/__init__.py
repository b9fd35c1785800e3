"""
A journal: every outcome of a job in one SQLite file, so that nothing that was done is lost.

    journal     Journal: which file, which job, how values are kept
    use         what a processor brings to it: name, keys, values
    recalling   what it knows of items from earlier runs
    run         one run's use of it: what is known, what is new
    writer      the thread that commits outcomes in groups
    file        the file: created, recognised, refused with a reason; and whether it is still there
    claims      who may write it: locks, and the run that the file's header names
    rows        what is written of an outcome, and read again
    keys        what tells one item from another
    table       what it holds, as a DataFrame
    serializers how values become bytes, and are refused
"""

from __future__ import annotations

from ragasync.journal.journal import Journal

__all__ = ["Journal"]
