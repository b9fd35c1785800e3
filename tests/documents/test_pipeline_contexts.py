"""What loading or cutting one document sets in its context, no other document ever sees."""

import contextvars
import decimal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragasync.documents import AsyncDocumentProcessor, Document, MemoryStore

pytestmark = pytest.mark.real_time

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


class Noting:
    """Stages that note what they see in their context, and leave something else behind."""

    def __init__(self, documents: int = 1) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self._documents = documents

    def load(self, name: str) -> list[Document]:
        """Return the documents of a source."""
        self._note("load", name)
        return [Document(f"{name}/{n}", f"text of {name}") for n in range(self._documents)]

    def chunk(self, text: str) -> list[str]:
        """Return a text as its own chunk."""
        self._note("chunk", text)
        return [text]

    def _note(self, stage: str, name: str) -> None:
        """Note what is seen before anything is set."""
        self.seen.append((stage, tenant.get(), decimal.getcontext().prec))
        tenant.set(name)
        decimal.setcontext(decimal.Context(prec=5))


@pytest.mark.parametrize("documents", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"store": MemoryStore}, {"timeout": 30}])
async def test_stages_on_threads_see_the_context_of_the_one_who_started(
    documents: int, settings: dict[str, Any]
):
    """Those of documents that share a hop or a source too."""
    made = {name: value() if callable(value) else value for name, value in settings.items()}
    stages = Noting(documents)
    processor = AsyncDocumentProcessor(load=stages.load, chunk=stages.chunk, **made)
    token = tenant.set("the one who started")
    for _ in range(2):
        result = await processor.process([f"source {number}" for number in range(60)])
        assert result.all_succeeded
    tenant.reset(token)
    assert {(name, precision) for _, name, precision in stages.seen} == {
        ("the one who started", 28)
    }
    assert len(stages.seen) >= 60 * (1 + documents)


async def test_stages_on_threads_of_ones_own_share_no_context():
    """Whatever the thread had before."""
    stages = Noting()
    with ThreadPoolExecutor(1) as executor:
        processor = AsyncDocumentProcessor(load=stages.load, chunk=stages.chunk, executor=executor)
        assert (await processor.process([f"source {n}" for n in range(20)])).all_succeeded
    assert len({(name, precision) for _, name, precision in stages.seen}) == 1
