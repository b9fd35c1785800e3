"""What tells one source from another in the journal of a document processor."""

import os

import pytest

from ragasync import Journal, JournalError
from ragasync.documents import AsyncDocumentProcessor, Document, Source, Stage
from tests.support.embedders import CountingEmbedder, words
from tests.support.requirements import only_where


@pytest.fixture
def path(tmp_path):
    """Where the journal is."""
    return tmp_path / "run.sqlite"


def processor(path, **changes) -> AsyncDocumentProcessor:
    """Return a processor that keeps everything in its result, and has a journal."""
    stages = {"chunk": words, "embed": CountingEmbedder(0.01)}
    return AsyncDocumentProcessor(**{**stages, "journal": path, **changes})


async def attempts(path, sources, **changes) -> list[int]:
    """Process sources; return how often each was tried in this run."""
    result = await processor(path, **changes).process(sources)
    return [outcome.attempts for outcome in result]


async def test_metadata_is_a_part_of_the_content(path):
    """As it is for a store; not the order in which it came."""
    for document, expected in [
        (Document("a", "text", {"year": 2025, "by": "me"}), [1]),
        (Document("a", "text", {"year": 2026, "by": "me"}), [1]),
        (Document("a", "text", {"by": "me", "year": 2026}), [0]),
    ]:
        assert await attempts(path, [document]) == expected


async def test_equal_texts_under_two_ids_are_two_documents(path):
    """And one that is given twice is told apart by its place."""
    sources = [("a", "same"), ("b", "same"), ("a", "same")]
    assert await attempts(path, sources) == [1, 1, 1]
    result = await processor(path).process(sources)
    assert [outcome.value.id for outcome in result] == ["a", "b", "a"]
    assert await attempts(path, [*sources, ("a", "same")]) == [0, 0, 0, 1]


class Ticket:
    """Something that only a loader of the user's own can read."""

    def __init__(self, number: int) -> None:
        self.number = number


async def load_ticket(ticket: Ticket) -> Document:
    """Return a ticket as a document."""
    return Document(str(ticket.number), f"ticket {ticket.number}")


async def test_a_source_without_content_of_its_own_needs_a_key(path):
    """The error asks for it."""
    with pytest.raises(TypeError, match=r"Ticket\) is not plain data: pass key="):
        await attempts(path, [Ticket(1)], load=load_ticket)
    with pytest.raises(ValueError, match=r"key= .* needs journal="):
        processor(None, key=id)
    tickets, changes = (
        [Ticket(1), Ticket(2)],
        {"load": load_ticket, "key": lambda one: one.number},
    )
    assert await attempts(path, tickets, **changes) == [1, 1]
    assert await attempts(path, [Ticket(3), Ticket(2)], **changes) == [1, 0]


async def test_a_key_of_the_users_own_is_all_that_counts(path, tmp_path):
    """Whoever gives one says what a change is; another chunk size is one still."""
    (tmp_path / "a.txt").write_text("text")
    by_id = {"key": lambda source: source.id}
    assert await attempts(path, tmp_path / "a.txt", **by_id) == [1]
    (tmp_path / "a.txt").write_text("another text")
    assert await attempts(path, tmp_path / "a.txt", **by_id) == [0]
    assert await attempts(path, tmp_path / "a.txt", **by_id, version="2") == [1]


@pytest.mark.parametrize("kind", [str, lambda path: path])
async def test_a_path_is_known_by_its_content_as_a_text_too(path, tmp_path, kind):
    """A loader of the user's own may take either; a text that names no file is only a text."""

    async def read(source) -> Document:
        return Document(str(source), (tmp_path / source).read_text())

    for name in "ab":
        (tmp_path / name).write_text(name)
    sources = [kind(tmp_path / "a"), kind(tmp_path / "b")]
    assert await attempts(path, sources, load=read) == [1, 1]
    (tmp_path / "b").write_text("changed")
    assert await attempts(path, sources, load=read) == [0, 1]
    assert await attempts(path, ["no file, \0 but a text"], load=given_as_document) == [1]
    assert await attempts(path, ["no file, \0 but a text"], load=given_as_document) == [0]


async def given_as_document(text: str) -> Document:
    """Return a text as a document."""
    return Document(text, text)


async def test_equal_files_under_two_names_are_two_documents(path, tmp_path):
    """A copy is loaded under its own id."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("same")
        assert await attempts(path, tmp_path / name) == [1]


@only_where(hasattr(os, "mkfifo"), "this system has no pipes in folders")
async def test_what_cannot_be_read_has_its_failure_and_holds_nothing_up(path, tmp_path):
    """A pipe that nobody writes to, a missing file, a name that no file can have."""
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / "pipe", tmp_path / "missing", tmp_path / "no\0name"]
    sources = [Source(repr(one.name), one) for one in paths]
    assert await attempts(path, sources) == [1, 1, 1]
    again = await processor(path).process(sources)
    assert [(outcome.status, outcome.attempts) for outcome in again] == [("failed", 0)] * 3
    (tmp_path / "missing").write_text("found")
    assert await attempts(path, sources) == [0, 1, 0]


def cutters():
    """Return a splitter, the same one mended, and another: async, so that they need no thread."""

    async def cut(text: str) -> list[str]:
        return text.split()

    before = cut

    async def cut(text: str) -> list[str]:
        return text.split(" ")

    async def other(text: str) -> list[str]:
        return [text]

    return before, cut, other


async def test_a_mended_function_warns_and_goes_on_and_another_starts_anew(path):
    """What the first did is kept under its name; it is not taken for the other's."""
    before, mended, other = cutters()
    assert await attempts(path, [("a", "text")], chunk=before) == [1]
    with pytest.warns(UserWarning, match="source of 'documents' has changed"):
        assert await attempts(path, [("a", "text")], chunk=mended) == [0]
    assert await attempts(path, [("a", "text")], chunk=other) == [1]


class Cut:
    """A splitter with a setting."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, text: str) -> list[str]:
        """Cut."""
        return [text[: self.size]]


async def test_the_warning_of_changed_settings_does_not_say_that_all_outcomes_are_kept(path):
    """Those of other settings are not: the documents are processed again."""
    assert await attempts(path, [("a", "text")], chunk=Cut(2)) == [1]
    with pytest.warns(UserWarning, match="outcomes of the same settings are kept"):
        assert await attempts(path, [("a", "text")], chunk=Cut(3)) == [1]


class Embedder:
    """An embedder with a model, whose code may be edited, and a key, which may be renewed."""

    def __init__(self, model: str, api_key: str = "k") -> None:
        self.model, self.api_key = model, api_key

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Embed."""
        return [[float(len(text)), 1.0] for text in texts]


class Edited(Embedder):
    """The same, edited since."""

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Embed."""
        return [[float(len(text)), 2.0] for text in texts]


Edited.__qualname__ = Edited.__name__ = "Embedder"


async def test_the_journal_knows_functions_as_the_store_does(path):
    """A renewed key or edited code of a named embedder is no change, another model another job."""
    for embedder, expected in [
        (Embedder("small"), [1]),
        (Embedder("small", api_key="renewed"), [0]),
        (Edited("small"), [0]),
        (Embedder("large"), [1]),
    ]:
        assert await attempts(path, [("a", "text")], embed=embedder.embed) == expected


async def test_a_version_stands_in_place_of_the_code_in_a_journal_too(path):
    """An edited function is then no reason to warn."""
    before, mended, _ = cutters()
    assert await attempts(path, [("a", "text")], chunk=Stage(before, version="1")) == [1]
    assert await attempts(path, [("a", "text")], chunk=Stage(mended, version="1")) == [0]
    assert await attempts(path, [("a", "text")], chunk=Stage(mended, version="2")) == [1]


async def test_a_journal_is_of_documents_or_of_another_name(path):
    """A job that has the same file by mistake is refused."""
    await attempts(path, [("a", "text")])
    with pytest.raises(JournalError, match=r"is of the job 'documents', version ''.*'mine'"):
        await attempts(Journal(path, name="mine"), [("a", "text")])
    with pytest.raises(ValueError, match="by the serializer 'json': leave serializer= out"):
        processor(Journal(path, serializer="json"))
    assert await attempts(Journal(path.with_name("p"), serializer="pickle"), [("a", "b")]) == [1]
    assert await attempts(Journal(path.with_name("p"), serializer="pickle"), [("a", "b")]) == [0]
