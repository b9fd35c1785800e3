"""
The contenders of `documents.py`: ways to cut documents into chunks and have them embedded.

To add one, write an async function of (documents, embed, at_once) that has texts embedded in
batches of at most BATCH, with bounded concurrency, and give it a line in CONTENDERS. What it gives
back is read off the clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pipelines_by_hand as by_hand
import pipelines_of_peers as peers
from corpus import Pair
from measuring import lines_written
from pipelines_by_hand import BATCH, Embedded

from ragasync import BatchResult
from ragasync.documents import AsyncDocumentProcessor, ProcessedDocument


async def ragasync(
    documents: Sequence[Pair], embed: Any, at_once: int
) -> BatchResult[ProcessedDocument]:
    """Process with everything that a run of ragasync does."""
    processor = AsyncDocumentProcessor(
        embed=embed, embed_concurrency=at_once, batch_size=BATCH, retry_delay=0.0
    )
    return await processor.process(documents)


def from_mapping(given: Any) -> Iterable[tuple[str, Embedded]]:
    """Return the embedded documents by their ids."""
    items: Iterable[tuple[str, Embedded]] = given.items()
    return items


def from_result(given: Any) -> Iterable[tuple[str, Embedded]]:
    """Return the documents of a BatchResult in which all are done."""
    assert given.all_succeeded
    return [
        (done.id, ([each.text for each in done.chunks], done.embeddings)) for done in given.results
    ]


def from_chunks(given: Any) -> Iterable[tuple[str, Embedded]]:
    """Return the documents of LangChain's chunks, with their vectors."""
    return by_document((each.metadata["source"], each.page_content, row) for each, row in given)


def from_nodes(given: Any) -> Iterable[tuple[str, Embedded]]:
    """Return the documents of LlamaIndex's nodes."""
    return by_document((each.ref_doc_id, each.text, each.embedding) for each in given)


def by_document(chunks: Iterable[tuple[str, str, Any]]) -> Iterable[tuple[str, Embedded]]:
    """Return chunks, each with its document's id in front, by document."""
    embedded: dict[str, Embedded] = {}
    for name, text, vector in chunks:
        texts, vectors = embedded.setdefault(name, ([], []))
        texts.append(text)
        vectors.append(vector)
    return embedded.items()


@dataclass(frozen=True)
class Contender:
    """A way to embed documents, and how to read what it gives."""

    run: Callable[[Any, Any, int], Awaitable[object]]
    read: Callable[[Any], Iterable[tuple[str, Embedded]]] = from_mapping
    helpers: tuple[Callable[..., object], ...] = ()
    """What else the user has to write."""
    needs: tuple[str, ...] = ()
    """The modules that have to be installed."""
    most_documents: int = 1_000_000
    """Beyond, it would take minutes."""
    is_slow: bool = False
    """Whether it takes part in two rounds only."""
    takes_sync: bool = False
    """Whether it is given a sync embedder as it is; others are given one that hops to threads."""
    takes_cut: bool = False
    """Whether it is given documents that have been cut."""
    embeds: bool = True
    """Whether there are vectors."""

    @property
    def lines(self) -> int:
        """The lines that a user would write."""
        return lines_written(self.run, *self.helpers)


CONTENDERS = {
    "ragasync": Contender(ragasync, from_result, takes_sync=True),
    "by hand, lists": Contender(
        by_hand.pipelined_into_lists, helpers=(by_hand.pipelined, by_hand.again)
    ),
    "by hand, float32 arrays": Contender(
        by_hand.pipelined_into_arrays, helpers=(by_hand.pipelined, by_hand.again)
    ),
    "gather a document": Contender(
        by_hand.gather_a_document, helpers=(by_hand.again,), is_slow=True
    ),
    "LangChain splitter and abatch": Contender(
        peers.with_langchain,
        from_chunks,
        helpers=(by_hand.again,),
        needs=("langchain_core", "langchain_text_splitters"),
    ),
    "LlamaIndex IngestionPipeline": Contender(
        peers.with_llama_index,
        from_nodes,
        helpers=(by_hand.again,),
        needs=("llama_index",),
        most_documents=200,
        is_slow=True,
    ),
    "floor: the calls alone, chunks cut before": Contender(by_hand.calls_alone, takes_cut=True),
    "floor: cutting alone": Contender(by_hand.cutting_alone, embeds=False),
}
