"""Random runs with budgets and failures: no vector is paid for twice, and none is shown early."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ragasync import BatchResult, note_usage
from ragasync.documents import AsyncDocumentProcessor, MemoryStore, ProcessedDocument
from ragasync.testing import run_on_virtual_clock
from tests.support.embedders import words
from tests.support.random_schedules import examples

IDS = "abc"
NUMBERS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def text_of(id_: str, numbers: Sequence[int]) -> str:
    """The text of a document; no other document has its words, so that each call has an owner."""
    return " ".join(f"{id_}{number}" for number in numbers)


def number_in(word: str) -> float:
    """The number in a word, which is its vector."""
    return float(word[1:])


@dataclass(frozen=True)
class Step:
    """
    A run, or a deletion.

    Args:
        texts: the text of each document of the run, by id.
        max_tokens: the budget of the run, at a token for each chunk; None for any number.
        poison: a chunk that cannot be embedded.
        cancel_after: the seconds after which the run is cancelled, if it is.
        delete: the id of a document that is deleted afterwards, or None.
    """

    texts: dict[str, str]
    max_tokens: int | None
    poison: str
    cancel_after: float | None
    delete: str | None


STEPS = st.lists(
    st.builds(
        Step,
        st.dictionaries(st.sampled_from(IDS), NUMBERS, min_size=1).map(
            lambda found: {id_: text_of(id_, numbers) for id_, numbers in found.items()}
        ),
        st.none() | st.integers(1, 12),
        st.integers(0, 60).map("a{}".format),
        st.none() | st.sampled_from([0.5, 1.5, 2.5]),
        st.none() | st.sampled_from(IDS),
    ),
    min_size=1,
    max_size=6,
)


class Service:
    """An embedder whose calls take a second; it notes what was paid for."""

    name = "service"

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.poison: list[str] = []  # not a setting, which would make it another embedder

    async def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts, unless the poison is among them."""
        await asyncio.sleep(1.0)
        if not set(self.poison).isdisjoint(texts):
            raise ValueError("no")
        note_usage(tokens=len(texts))
        self.paid += texts
        return np.array([[number_in(text), 1.0] for text in texts])


@dataclass
class Model:
    """The chunks of stored documents, and the other texts whose vectors were paid for."""

    stored: dict[str, list[str]] = field(default_factory=dict)
    spare: set[str] = field(default_factory=set)

    @property
    def known(self) -> set[str]:
        """The texts that need not be embedded."""
        return self.spare.union(*self.stored.values())

    def take(self, texts: dict[str, str], done: set[str], paid: Sequence[str]) -> None:
        """Take over what a run has done."""
        given_up = {word for id_ in texts.keys() - done for word in texts[id_].split()}
        for id_ in done:
            self.stored[id_] = texts[id_].split()
        kept = self.spare.difference(*(self.stored[id_] for id_ in done))
        self.spare = kept | (given_up & set(paid))


def is_held(vector: object) -> bool:
    """Whether a look-up has found a vector."""
    return vector is not None


async def run(
    store: MemoryStore, service: Service, step: Step
) -> BatchResult[ProcessedDocument] | None:
    """Make the run of a step; None if it was cancelled."""
    processor = AsyncDocumentProcessor(
        chunk=words,
        embed=service,
        store=store,
        batch_size=2,
        embed_concurrency=2,
        retry_count=0,
        max_tokens=step.max_tokens,
    )
    service.poison, service.paid = [step.poison], []
    job = processor.start(step.texts.items(), on_current_loop=True)
    if step.cancel_after is not None:
        await asyncio.sleep(step.cancel_after)
        job.cancel()
    return await job


@given(STEPS)
@examples(60)
def test_a_vector_that_was_paid_for_is_used_until_its_text_is_gone(steps: list[Step]):
    """Whatever stops the runs; and what a store shows is what its documents have."""

    async def play() -> None:
        service, model = Service(), Model()
        with MemoryStore() as store:
            for step in steps:
                known = model.known
                result = await run(store, service, step)
                assert known.isdisjoint(service.paid)
                done = {outcome.item.id for outcome in result if outcome.status == "done"}
                model.take(step.texts, done, service.paid)
                if step.delete is not None:
                    store.delete(step.delete)
                    model.stored.pop(step.delete, None)
                shown = {each.id: store.get(each.id) for each in store.documents()}
                assert {
                    id_: [chunk.text for chunk in document.chunks]
                    for id_, document in shown.items()
                } == model.stored
                if (embedder := store.spare_embedder()) is not None:
                    texts = sorted(model.spare)
                    vectors = store.spare_vectors_of(embedder, texts)
                    held = [None if vector is None else vector[0] for vector in vectors]
                    assert held == list(map(number_in, texts))
                    stored = [word for found in model.stored.values() for word in found]
                    assert not any(map(is_held, store.spare_vectors_of(embedder, stored)))
                else:
                    assert not model.spare
            last = Step({id_: text_of(id_, [1, 2, 31]) for id_ in IDS}, None, "", None, None)
            known = model.known
            assert (await run(store, service, last)).all_succeeded
            assert known.isdisjoint(service.paid)

    run_on_virtual_clock(play())
