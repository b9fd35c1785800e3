"""Short texts that are cut where they are: a change of threads would cost more than the cut."""

import threading
from typing import Any

import pytest

from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    MemoryStore,
    RecursiveSplitter,
    add_locations,
)
from ragasync.documents.locations import chunks_at
from ragasync.documents.stages import prepare
from ragasync.documents.stages.prepare import INLINE_MAX_CHARS

SHORT = Document("short", "One sentence. Another one.")


@pytest.fixture
def cut_in(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of each document whether it is cut in this very thread."""
    here: list[bool] = []

    def noting(document: Document, spans: Any) -> Any:
        here.append(threading.current_thread() is threading.main_thread())
        return chunks_at(document, spans)

    monkeypatch.setattr(prepare, "chunks_at", noting)
    return here


@pytest.mark.real_time
async def test_a_short_text_is_cut_here_and_a_long_one_on_a_thread(cut_in):
    """A millisecond is the most that the loop is held."""
    long = Document("long", "word " * (INLINE_MAX_CHARS // 5 + 1))
    result = await AsyncDocumentProcessor().process([SHORT, long])
    assert result.all_succeeded
    assert sorted(cut_in) == [False, True]


@pytest.mark.real_time
async def test_what_a_store_has_to_be_asked_for_is_cut_on_a_thread(cut_in):
    """As long as the store may take."""
    assert (await AsyncDocumentProcessor(store=MemoryStore()).process([SHORT])).all_succeeded
    assert cut_in == [False]


@pytest.mark.real_time
async def test_a_splitter_of_ones_own_is_called_on_a_thread():
    """Nobody knows how long it takes; one that only derives from ours is somebody's own too."""
    seen = []

    class Own(RecursiveSplitter):
        def __call__(self, document: Document | str) -> Any:
            seen.append(threading.current_thread() is threading.main_thread())
            return super().__call__(document)

    assert (await AsyncDocumentProcessor(chunk=Own()).process([SHORT])).all_succeeded
    assert seen == [False]


@pytest.mark.real_time
async def test_what_is_cut_here_is_counted_with_its_stage():
    """And its time, but for the last millisecond."""
    texts = [(str(number), "Some words in a row. " * 500) for number in range(100)]
    result = await AsyncDocumentProcessor().process(texts)
    stats = {stage.name: stage for stage in result.stats.stages}
    assert stats["load and chunk"].ended == 100
    assert stats["load and chunk"].worked > 0


async def test_a_failure_here_names_its_stage(monkeypatch):
    """As one on a thread does."""

    def broken(document: Document, spans: Any) -> Any:
        raise ValueError(f"no places in {document.id}")

    monkeypatch.setattr(prepare, "chunks_at", broken)
    result = await AsyncDocumentProcessor().process([SHORT])
    assert (result[0].stage, str(result[0].error)) == ("chunk", "no places in short")


@pytest.mark.parametrize(
    "document",
    [
        Document("a.txt", "one\ntwo three\n\nfour"),
        Document("a.md", "# One\n\ntext\n\n## Two\nmore text here\n\n# Three"),
        Document("notes", "Title\n=====\n\ntext - and more\n- a list"),
        Document("a.v1/b", "# One\nin a folder whose name has a dot"),
        Document("a.py", "# no heading\nimport this"),
        Document("pages", "one two three four", {"page_starts": [0, 8], "line": 7}),
        Document("cells", "one\ntwo\nthree", {"cell_starts": [0, 4]}),
        Document("told", "one\ntwo\nthree", {"headings": [(4, 1)]}),
        Document("blank", "  \n "),
    ],
    ids=lambda document: document.id,
)
def test_chunks_made_with_their_places_are_those_that_got_them_later(document: Document):
    """The short way gives what the long one does, read-only too."""
    splitter = RecursiveSplitter(chunk_size=8)
    made = chunks_at(document, splitter.spans(document.text))
    assert made == add_locations(document, splitter(document))
    for chunk in made:
        with pytest.raises(TypeError):
            chunk.metadata["line"] = 0  # type: ignore[index]
