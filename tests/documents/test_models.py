"""The nouns of the pipeline: a document and a chunk."""

import copy
import pickle
from pathlib import Path

import pytest

from ragasync.documents import Chunk, Document

NOUNS = [
    Document("a.md", "text", {"title": "A", "pages": (0, 7)}, "/docs/a.md"),
    Document("b", "text"),
    Chunk("text", 3, 7, {"page": 2}),
    Chunk("", 0, 0),
]


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_travels_to_another_process_and_stays_equal(noun):
    """Pickling and deep copies give back the same values, the metadata read-only again."""
    for twin in (pickle.loads(pickle.dumps(noun)), copy.deepcopy(noun)):
        assert twin == noun
        assert hash(twin) == hash(noun)
        with pytest.raises(TypeError):
            twin.metadata["new"] = 1


def test_metadata_is_a_copy_that_nobody_can_write_to():
    """What the caller does with the dict afterwards does not reach the document."""
    given = {"title": "A"}
    document = Document("a", "text", given)
    given["title"] = "B"
    assert document.metadata == {"title": "A"}


def test_nouns_with_other_metadata_are_not_equal():
    """Metadata takes part in equality, though not in the hash."""
    assert Document("a", "text", {"x": [1]}) != Document("a", "text", {"x": [2]})
    assert hash(Document("a", "text", {"x": [1]})) == hash(Document("a", "text", {"x": [2]}))


def test_fields_cannot_be_set():
    """Documents are shared by stages and threads, so they stay as they are."""
    with pytest.raises(AttributeError):
        Document("a", "text").text = "other"  # type: ignore[misc]


def test_wrong_arguments_are_errors_at_once():
    """A message says what was expected and what came."""
    with pytest.raises(TypeError, match=r"Document\.text must be a str, got b'bytes'"):
        Document("a", b"bytes")
    with pytest.raises(TypeError, match=r"Document\.id must be a str, got 1"):
        Document(1, "text")
    with pytest.raises(TypeError, match=r"Document\.source must be a str or None.*str\(path"):
        Document("a", "text", source=Path("/docs/a.md"))
    with pytest.raises(TypeError, match=r"Chunk\.text must be a str, got None"):
        Chunk(None, 0, 0)
    with pytest.raises(ValueError, match="got start=4, end=3"):
        Chunk("text", 4, 3)


def test_a_repr_is_one_short_line_however_long_the_text():
    """A list of documents stays readable in a notebook."""
    assert repr(Document("a.md", "x\n" * 600)) == "<Document 'a.md': 1,200 characters>"
    assert repr(Chunk("ab\n" * 400, 5, 1205)) == "<Chunk 5:1205 '" + r"ab\n" * 13 + "a'>"
