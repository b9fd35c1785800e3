"""A document job with a store and a journal, for a process of its own that may be killed."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ragasync import Journal
from ragasync.documents import AsyncDocumentProcessor, LanceStore, SqliteStore

IN_A_CALL = 8
CALLS = 2
ROOM = 3 * IN_A_CALL * CALLS
"""The highest number of chunks in flight: waiting for a call, in calls, and after them."""


def cut(text: str) -> list[str]:
    """Return the lines of a text."""
    return text.splitlines()


class Embedder:
    """Notes each text in a file of its own before it answers, so that a kill loses no note."""

    name = "lengths"

    def __init__(self, notes: str) -> None:
        self._notes = notes

    async def __call__(self, texts: list[str]) -> list[list[float]]:
        """Answer for all after a while."""
        file = os.open(self._notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, "".join(f"{text}\n" for text in texts).encode())
        os.close(file)
        await asyncio.sleep(0.02)
        return [[1.0, len(text)] for text in texts]


class Deadly(SqliteStore):
    """A store whose process dies after it has stored a number of documents."""

    left = -1

    def upsert(self, *document, **facts) -> None:
        """Store a document."""
        super().upsert(*document, **facts)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def opened(place: Path, kind: str) -> Any:
    """Open the job's store of a kind; only a "deadly" one takes documents one after the other."""
    if kind == "lance":
        return LanceStore(place / "store.lance")
    return (Deadly if kind == "deadly" else SqliteStore)(place / "store.sqlite")


def command(
    folder: Path, *, dies_after: int = -1, flush: float = 0.05, kind: str = "deadly"
) -> list[str]:
    """Return the command that runs the job over `folder`/docs, with its files in `folder`."""
    call = f"main({str(folder)!r}, {dies_after}, {flush}, {kind!r})"
    return [sys.executable, "-c", f"from tests.support.store_job_script import main; {call}"]


def main(folder: str, dies_after: int, flush: float, kind: str) -> None:
    """Run the job; print of each document its id, status, attempts, and whether it was stored."""
    place = Path(folder)
    journal = Journal(place / "run.sqlite", flush_seconds=flush)
    with opened(place, kind) as store:
        store.left = dies_after
        result = AsyncDocumentProcessor(
            chunk=cut,
            embed=Embedder(str(place / "embedded.txt")),
            store=store,
            batch_size=IN_A_CALL,
            embed_concurrency=CALLS,
            root=place / "docs",
            journal=journal,
        ).process_sync(place / "docs")
        rows = [
            (outcome.item.id, outcome.status, outcome.attempts, outcome.value.unchanged)
            for outcome in result
        ]
    print(json.dumps(rows))  # noqa: T201  # for the parent
