"""Chunks by tokens: no chunk over its bound, whatever counts them."""

import copy
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import wordllama
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from ragasync.documents import Document, SemanticTextSplitter, TokenSplitter

# Internals: single steps of a pipeline.
from ragasync.documents.splitters import CHARS_A_TOKEN, as_token_counter, estimated_tokens
from tests.documents.test_splitters import PIECES, TEXTS, check_invariants, texts

VOCABULARY = Path(wordllama.__file__).parent / "tokenizers/l2_supercat_tokenizer_config.json"
WORDS = "How long is a piece of string? It depends on who has cut it, and why.\n\n" * 40
SIZES = st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n // 2)))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A real vocabulary, of 32,000 tokens, that came inside a package."""
    return Tokenizer.from_file(str(VOCABULARY))


@pytest.fixture(scope="module")
def count(tokenizer) -> Callable[[str], int]:
    """What counts by it."""
    return as_token_counter(tokenizer)


def words(text: str) -> int:
    """Count words."""
    return len(text.split())


def odd(text: str) -> int:
    """Count pairs of letters as one, so that a beginning has more tokens than the whole."""
    return len(text.replace("wo", "1").replace("rd", "2").replace("12", "3"))


def most(splitter: TokenSplitter) -> int:
    """Return the most characters that its chunks may have."""
    return splitter.max_tokens * CHARS_A_TOKEN


@pytest.mark.parametrize("count", [len, words, odd, estimated_tokens])
@given(text=TEXTS, sizes=SIZES)
def test_no_chunk_has_more_tokens_than_asked(count, text, sizes):
    """And nothing but white space is lost, whatever counts."""
    splitter = TokenSplitter(sizes[0] + 4, sizes[1], count_tokens=count)
    chunks = splitter(text)
    check_invariants(text, chunks, most(splitter))
    assert all(count(chunk.text) <= splitter.max_tokens for chunk in chunks)
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(set(starts))


@settings(max_examples=40, deadline=None)
@given(
    text=st.lists(st.sampled_from([*PIECES, WORDS[:90]])).map("".join),
    chunk_overlap=st.integers(0, 8),
)
def test_a_real_vocabulary_keeps_its_bound_too(count, text, chunk_overlap):
    """Merged pairs make its counts uneven."""
    splitter = TokenSplitter(16, chunk_overlap, count_tokens=count)
    chunks = splitter(text)
    check_invariants(text, chunks, most(splitter))
    assert all(count(chunk.text) <= 16 for chunk in chunks)


@pytest.mark.parametrize("count", [len, words, estimated_tokens])
def test_chunks_are_filled(count):
    """A bound that no chunk comes near would cost calls of the embedder."""
    chunks = TokenSplitter(60, count_tokens=count)("one two three four five six. " * 400)
    counts = [count(chunk.text) for chunk in chunks[:-1]]
    assert min(counts) >= 30
    assert sum(counts) / len(counts) >= 45


@pytest.mark.parametrize("count", [len, words])
def test_the_overlap_is_counted_in_tokens(count):
    """It is there, and within what was asked."""
    text = "one two three four five six. " * 200
    chunks = TokenSplitter(60, 20, count_tokens=count)(text)
    shared = [text[b.start : a.end] for a, b in pairwise(chunks)]
    assert all(0 < count(piece) <= 20 for piece in shared)


def test_a_tokenizer_that_truncates_and_pads_counts_the_whole_text(tokenizer, count):
    """Otherwise every long text would count as many as the model takes, and nothing be cut."""
    whole = TokenSplitter(64, count_tokens=count)
    limited = Tokenizer.from_str(tokenizer.to_str())
    limited.enable_truncation(32)
    limited.enable_padding(length=50)
    assert as_token_counter(limited)(WORDS) == count(WORDS) > 500
    assert texts(TokenSplitter(64, count_tokens=limited)(WORDS)) == texts(whole(WORDS))
    assert len(limited.encode(WORDS).ids) == 50  # the one that was given stays as it is


def test_a_counter_without_end_makes_no_chunk_without_end():
    """One that says 1 of every text, as a tokenizer may of a blank one or of one long word."""
    chunks = TokenSplitter(10, count_tokens=lambda text: 1)("x" * 10_000)
    assert max(len(chunk.text) for chunk in chunks) <= 10 * CHARS_A_TOKEN


def test_a_character_that_is_over_the_bound_alone_is_an_error():
    """It can be neither cut nor left out."""
    with pytest.raises(ValueError, match=r"max_tokens=2 is too few: '🙂' alone has 4"):
        TokenSplitter(2, count_tokens=lambda text: len(text.encode()))("a 🙂")


@pytest.mark.parametrize("unit", ["word ", "x", " ", "a\n\n", "word" + " " * 200])
def test_a_counter_is_called_a_few_times_a_chunk(unit):
    """Of texts that are as long as a chunk: twice the text costs about twice as much."""

    def counted(text: str) -> int:
        seen = 0

        def count(piece: str) -> int:
            nonlocal seen
            seen += len(piece)
            return estimated_tokens(piece)

        TokenSplitter(100, 20, count_tokens=count)(text)
        return seen

    text = unit * (20_000 // len(unit)) + "x"
    assert counted(text * 2) <= 2.3 * counted(text) + 2000
    assert counted(text) <= 12 * len(text) + 2000


def test_tokenizers_of_other_kinds_are_known_by_their_methods():
    """Of tiktoken, of transformers; what is neither is an error that says so."""

    class Tiktoken:
        name = "cl"

        def encode_ordinary(self, text):
            return text.split()

    class Transformers:
        name_or_path = "some/model"

        def encode(self, text, *, add_special_tokens, truncation, verbose):
            assert [add_special_tokens, truncation, verbose] == [False] * 3
            return text.split()

    for kind, name in ((Tiktoken(), "tiktoken:cl"), (Transformers(), "transformers:some/model")):
        splitter = TokenSplitter(10, count_tokens=kind)
        assert as_token_counter(kind)("a b c") == 3
        assert f"count_tokens={name})" in splitter.fingerprint
    with pytest.raises(TypeError, match="a function of a text or a tokenizer, got 'cl100k'"):
        TokenSplitter(10, count_tokens="cl100k")


@pytest.mark.parametrize("kind", [TokenSplitter, SemanticTextSplitter])
def test_the_fingerprint_tells_the_vocabulary(tokenizer, kind):
    """Two of one class may count differently; the same one in another process does not."""
    other = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    mine, others = (kind(max_tokens=10, count_tokens=each) for each in (tokenizer, other))
    assert mine.fingerprint != others.fingerprint
    twin = pickle.loads(pickle.dumps(mine))
    assert twin.fingerprint == mine.fingerprint == copy.deepcopy(mine).fingerprint
    assert texts(twin(WORDS)) == texts(mine(WORDS))


@pytest.mark.parametrize("kind", [TokenSplitter, SemanticTextSplitter])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [((0, 0), "max_tokens must be at least 1"), ((10, 6), "half of max_tokens=10, got 6")],
)
def test_sizes_that_cannot_work_are_errors_at_once(kind, sizes, message):
    """As for characters."""
    with pytest.raises(ValueError, match=message):
        kind(max_tokens=sizes[0], chunk_overlap=sizes[1])


# semantic-text-splitter


@pytest.mark.parametrize("count_tokens", [words, "text-embedding-3-small", estimated_tokens])
def test_the_semantic_splitter_counts_tokens_too(count_tokens):
    """By a function, or by a vocabulary that is inside the package; offsets stay exact."""
    splitter = SemanticTextSplitter(max_tokens=40, chunk_overlap=5, count_tokens=count_tokens)
    chunks = splitter(Document("a", WORDS))
    check_invariants(WORDS, chunks, 40 * CHARS_A_TOKEN)
    assert len(chunks) > 5
    if not isinstance(count_tokens, str):
        assert all(count_tokens(chunk.text) <= 40 for chunk in chunks)


def test_the_semantic_splitter_is_not_misled_by_truncation(tokenizer, count):
    """A tokenizer with truncation on made chunks of a hundred thousand characters."""
    limited = Tokenizer.from_str(tokenizer.to_str())
    limited.enable_truncation(32)
    chunks = SemanticTextSplitter(max_tokens=40, count_tokens=limited)(WORDS)
    assert all(count(chunk.text) <= 40 for chunk in chunks)


def test_a_model_that_nobody_knows_is_an_error_at_once():
    """Before a long run begins."""
    with pytest.raises(ValueError, match="no vocabulary for 'no-such-model'"):
        SemanticTextSplitter(max_tokens=40, count_tokens="no-such-model")


@pytest.mark.parametrize("sizes", [(2, 0), (2, 1), (3, 1), (4, 2)])
def test_words_are_not_cut_where_few_tokens_make_a_chunk(sizes):
    """Each fits by itself; a half of one is never repeated either."""
    text = "hello there you are, world! again a limit is fine"
    chunks = TokenSplitter(*sizes)(text)
    assert {word for chunk in chunks for word in chunk.text.split()} == set(text.split())
