"""
The journal: every outcome of a job in one SQLite file, so that finished work is never lost.

    journal.py      Journal: the settings; JournalBinding: how one processor uses a journal
    session.py      JournalSession: one run's use of it; JournalReader; Writer: the writing thread
    serializers.py  values to bytes and back; values that would change are refused
    rows.py         the key of an item, canonical text; outcomes to rows and back
    file.py         JournalFile: writes rows, and notices when the file is replaced or lost
    ownership.py    the job and the functions in the header; JournalLock: which run may write

`bind_journal` gives a processor its JournalBinding; each run opens a JournalSession with it, on a
thread. An item's key is looked up: if an earlier outcome still applies, it is used, otherwise the
item is processed. Its outcome goes to the Writer, which turns groups of outcomes into rows and
commits each group to the JournalFile.
"""

from __future__ import annotations

from ragasync.journal.journal import Journal

__all__ = ["Journal"]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)
