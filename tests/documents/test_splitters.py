"""Where a text is cut, and what may never be lost."""

import copy
import pickle
import random
import sys
import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync.documents import Document, RecursiveSplitter, SemanticTextSplitter

# Internals: single steps of a pipeline.
from ragasync.documents.adapters import as_chunks

# The general algorithm, which the fast way of the default splitter must agree with.
from ragasync.documents.splitters import spans
from ragasync.errors import MissingExtra

# Pieces that splitters stumble over: every separator, long words, gaps, wide characters.
PIECES = [
    "word",
    "x" * 30,
    " ",
    "\n",
    "\n\n",
    "\n\n\n",
    ". ",
    ".\n",
    "\n\n# ",
    "\t",
    "。",
    "é",
    "🙂",
]
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))
SIZES = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n // 2)))


def texts(chunks) -> list[str]:
    """Return what the chunks say."""
    return [chunk.text for chunk in chunks]


def check_invariants(text: str, chunks, chunk_size: int) -> None:
    """Assert what holds for every splitter, text and size."""
    covered = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip()
        assert len(chunk.text) <= chunk_size
        assert not text[covered : chunk.start].strip()
        assert chunk.end > covered
        covered = chunk.end
    assert not text[covered:].strip()


@given(TEXTS, SIZES)
def test_chunks_cover_the_text_within_their_size(text, sizes):
    """Offsets are exact, no chunk is too long or blank, and only white space is lost."""
    splitter = RecursiveSplitter(*sizes)
    chunks = splitter(text)
    check_invariants(text, chunks, splitter.chunk_size)
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(set(starts))


@given(TEXTS, st.integers(1, 40))
def test_chunks_without_overlap_share_nothing(text, chunk_size):
    """Each character is embedded once."""
    chunks = RecursiveSplitter(chunk_size)(text)
    assert all(a.end <= b.start for a, b in pairwise(chunks))


@given(TEXTS, st.integers(1, 40))
def test_chunks_without_overlap_are_those_of_the_general_algorithm(text, chunk_size):
    """The default splitter takes a faster way to the same offsets."""
    found = RecursiveSplitter(chunk_size).spans(text)
    assert found == list(spans(text, lambda start: start + chunk_size, lambda cut: cut))


@given(TEXTS, SIZES)
def test_overlap_repeats_at_most_what_was_asked(text, sizes):
    """The repeated characters are the end of the chunk before."""
    splitter = RecursiveSplitter(*sizes)
    chunks = splitter(text)
    for before, after in pairwise(chunks):
        assert before.end - after.start <= splitter.chunk_overlap


@pytest.mark.parametrize("splitter", [RecursiveSplitter(), SemanticTextSplitter()])
def test_real_code_is_split_without_loss(splitter):
    """The invariants hold on a module of the standard library."""
    text = Path(sysconfig.get_path("stdlib"), "argparse.py").read_text("utf-8")[:20_000]
    chunks = splitter(Document("argparse", text))
    check_invariants(text, chunks, 1000)
    assert len(chunks) < 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aaaa bbbb\n\n# Head\n\ncccc", ["aaaa bbbb", "# Head\n\ncccc"]),
        ("aaaa bbb\n\ncccc dd\nee ff", ["aaaa bbb", "cccc dd\nee ff"]),
        ("aaaa bbbb.\nccc\ndddd eeee", ["aaaa bbbb.", "ccc\ndddd eeee"]),
        ("aaaa bbbb\ncc. dd eeee", ["aaaa bbbb", "cc. dd eeee"]),
        ("aaaa bbbb. cc ddddddd", ["aaaa bbbb.", "cc ddddddd"]),
        ("aaaa bbbb cc ddddddd", ["aaaa bbbb cc", "ddddddd"]),
        ("aaaa " + "b" * 20, ["aaaa", "b" * 16, "bbbb"]),
        ("b" * 20, ["b" * 16, "bbbb"]),
        ("漢字漢字漢字漢字漢。字漢字漢字漢字", ["漢字漢字漢字漢字漢。", "字漢字漢字漢字"]),
    ],
)
def test_the_best_boundary_in_the_second_half_wins(text, expected):
    """A heading before a blank line, a line before a sentence, a word before a hard cut."""
    assert texts(RecursiveSplitter(16)(text)) == expected


def test_a_boundary_at_the_very_limit_counts():
    """A chunk may be exactly as long as allowed."""
    assert texts(RecursiveSplitter(4)("aaa.\nbbbb cccc")) == ["aaa.", "bbbb", "cccc"]


def test_small_paragraphs_are_joined_up_to_the_limit():
    """A call of the embedder is not spent on three words."""
    assert texts(RecursiveSplitter(20)("one\n\ntwo\n\nthree\n\nfour\n\nfive")) == [
        "one\n\ntwo\n\nthree",
        "four\n\nfive",
    ]


def test_the_indentation_of_code_stays():
    """A chunk that starts within a function still looks like it."""
    chunks = texts(RecursiveSplitter(24)("def f():\n    first = 1\n    return first"))
    assert chunks == ["def f():\n    first = 1", "    return first"]


def test_overlap_starts_at_a_sentence_else_a_word_else_where_it_must():
    """The repeated part reads from a beginning wherever there is one."""
    sentence = RecursiveSplitter(40, 16)("aaaa bbbb cccc dddd eee fff. Gg hh. Ii jj kk ll mm")
    assert texts(sentence) == ["aaaa bbbb cccc dddd eee fff. Gg hh.", "Gg hh. Ii jj kk ll mm"]
    word = RecursiveSplitter(20, 8)("aaaa bbbb cccc dddd eeee")
    assert texts(word) == ["aaaa bbbb cccc dddd", "dddd eeee"]
    assert texts(RecursiveSplitter(4, 2)("abcdefgh")) == ["abcd", "cdef", "efgh"]


def test_a_wide_gap_is_not_bridged_by_overlap():
    """White space between chunks must not eat the room of the second."""
    chunks = RecursiveSplitter(10, 5)("aaa bbb" + " " * 100 + "ccc ddd eee")
    assert texts(chunks) == ["aaa bbb", "ccc ddd", "ddd eee"]


@pytest.mark.parametrize("blank", ["", " ", "\n\n\t ", "\u3000"])
def test_a_blank_text_has_no_chunks(blank):
    """There is nothing to embed."""
    assert RecursiveSplitter()(blank) == []


@pytest.mark.parametrize("unit", ["x", " ", "\n", "a ", ". ", "\n\n#", "x\n" + " " * 999])
@pytest.mark.parametrize("chunk_overlap", [0, 500])
def test_the_work_is_linear_whatever_the_text(unit, chunk_overlap):
    """Twice the text makes at most a little over twice as many calls into Python."""

    def calls(text: str) -> int:
        seen = 0

        def count(*_):
            nonlocal seen
            seen += 1

        sys.setprofile(count)
        try:
            RecursiveSplitter(1000, chunk_overlap)(text)
        finally:
            sys.setprofile(None)
        return seen

    small, large = (calls(unit * (size // len(unit)) + "x") for size in (50_000, 100_000))
    assert large <= 2.2 * small + 100


class Searched(str):
    """A text that counts the characters in which something was looked for."""

    characters = 0

    def find(self, wanted, start=0, end=None):
        self.characters += min(len(self), end or len(self)) - start
        return super().find(wanted, start, end)

    def rfind(self, wanted, start=0, end=None):
        self.characters += min(len(self), end or len(self)) - start
        return super().rfind(wanted, start, end)

    def __contains__(self, wanted):
        self.characters += len(self)
        return super().__contains__(wanted)


@pytest.mark.parametrize("unit", ["one two three. ", "a line of text\n", "# one\n\ntwo\n"])
def test_a_cut_looks_only_at_the_text_around_it(unit):
    """The whole of a text of megabytes would be searched thousands of times."""
    text = Searched(unit * 20_000)
    RecursiveSplitter(1000)(text)
    assert text.characters < 20 * len(text)


@pytest.mark.parametrize("splitter", [RecursiveSplitter, SemanticTextSplitter])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [((0, 0), "chunk_size must be at least 1, got 0"), ((10, 6), "half of chunk_size=10, got 6")],
)
def test_sizes_that_cannot_work_are_errors_at_once(splitter, sizes, message):
    """An overlap of more than half would repeat more than it brings."""
    with pytest.raises(ValueError, match=message):
        splitter(*sizes)


@pytest.mark.parametrize("splitter", [RecursiveSplitter(800, 80), SemanticTextSplitter(800, 80)])
def test_a_splitter_travels_and_its_fingerprint_tells_its_parameters(splitter):
    """Another chunk size is another fingerprint; a copy has the same."""
    name = type(splitter).__name__
    assert splitter.fingerprint == f"{name}/1(chunk_size=800, chunk_overlap=80)"
    twin = pickle.loads(pickle.dumps(splitter))
    assert twin == splitter == copy.deepcopy(splitter)
    assert texts(twin("one two")) == ["one two"]


@given(TEXTS, SIZES)
def test_the_semantic_splitter_keeps_the_same_promises(text, sizes):
    """Its offsets are characters, not bytes, and it loses nothing either."""
    splitter = SemanticTextSplitter(*sizes)
    check_invariants(text, splitter(text), splitter.chunk_size)


def test_a_missing_package_is_named_before_the_run(monkeypatch):
    """The message holds the pip command."""
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    with pytest.raises(MissingExtra, match=r'pip install "ragasync\[ingest\]"'):
        SemanticTextSplitter()


# Sentences of all scripts, and overlaps that are kept

SENTENCES = {
    "Chinese": "令牌桶以恒定速率补充令牌。",
    "Japanese": "桶は一定の速さで補充される！",
    "quoted": "彼は「待て。」",
    "fullwidth": "はい．",
    "Hindi": "बाल्टी भरती है।",
    "Arabic": "هل الدلو ممتلئ؟ ",
    "Urdu": "بالٹی بھر گئی۔ ",
    "Armenian": "Դույլը լի է։",
}


@pytest.mark.parametrize("script", SENTENCES)
def test_chunks_end_with_sentences_in_other_scripts_too(script):
    """Also where no space follows, and after what closes a quotation."""
    sentence = SENTENCES[script]
    chunks = texts(RecursiveSplitter(60)(sentence * 40))
    assert len(chunks) > 1
    end = sentence.strip()[-2:]
    assert all(chunk.endswith(end) for chunk in chunks), chunks


@pytest.mark.parametrize("mark", "，、；：،")
def test_chunks_end_with_parts_of_sentences_where_no_sentence_ends(mark):
    """A long sentence of Chinese is cut where it may be read aloud, not within a word."""
    chunks = texts(RecursiveSplitter(50)(f"令牌桶以恒定的速率补充令牌{mark}" * 40))
    assert all(chunk.endswith(mark) for chunk in chunks)


def test_a_sentence_ends_a_chunk_before_a_part_of_one_does():
    """Even where the part ends later."""
    text = "桶满了就停。然后等一等，再试一次再试一次再试"
    assert texts(RecursiveSplitter(16)(text))[0] in ("桶满了就停。", "桶满了就停。然后等一等，")
    assert texts(RecursiveSplitter(10)(text))[0] == "桶满了就停。"


def test_an_overlap_in_a_script_without_spaces_starts_with_a_sentence():
    """As in one with spaces."""
    text = "令牌桶以恒定速率补充令牌。" * 12
    first, second, *_ = RecursiveSplitter(60, 30)(text)
    assert second.start < first.end
    assert second.text.startswith("令牌桶")


@pytest.mark.parametrize("size", [100, 200, 1000])
@pytest.mark.parametrize("gap", [" ", "\n", "\n\n"])
def test_the_largest_overlap_is_kept_between_all_chunks(size, gap):
    """The white space after a cut leaves a little less to repeat, and not nothing."""
    chance = random.Random(size)
    words = ["a", "bucket", "refills", "steadily", "and", "never", "overflows"]
    text = gap.join(
        " ".join(chance.choices(words, k=chance.randint(2, 9))) + "." for _ in range(900)
    )
    chunks = RecursiveSplitter(size, size // 2)(text)
    check_invariants(text, chunks, size)
    assert all(after.start < before.end for before, after in pairwise(chunks))


@pytest.mark.parametrize("sizes", [(8, 2), (8, 4), (10, 5), (12, 6)])
def test_no_word_is_cut_that_fits_without_what_is_repeated(sizes):
    """Neither at the start of an overlap nor at the end of a chunk."""
    text = "hello there you are so welcome to a bucket of tokens that refills"
    words = {word for chunk in RecursiveSplitter(*sizes)(text) for word in chunk.text.split()}
    assert words == set(text.split())


@pytest.mark.timeout(20)  # a minute where it is quadratic
def test_pieces_that_a_splitter_rewrote_are_looked_for_in_linear_time():
    """Those that it left as they were are found between them, however many there are."""
    words = [f"Sentence {number} of a long text." for number in range(60_000)]
    text = "\n".join(words)
    chunks = as_chunks([word.upper() for word in words], text)
    assert {chunk.start for chunk in chunks} == {0}
    mixed = [word if number % 2 else word.upper() for number, word in enumerate(words)]
    kept = as_chunks(mixed, text)[1::2]
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in kept)


def test_a_piece_far_from_the_one_before_is_found():
    """A splitter may leave out as much as it likes."""
    text = "one " + "x" * 1_000_000 + " two"
    assert [chunk.start for chunk in as_chunks(["one", "ONE", "two"], text)] == [0, 0, 1_000_005]
