"""Splitters: text to chunks, by size in characters or tokens; the locations of chunks."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from ragasync.arguments import explains_arguments
from ragasync.documents.loaders.text import markdown_headings, title_at
from ragasync.documents.models import Chunk, Document
from ragasync.documents.stage import known_function
from ragasync.errors import MissingExtra
from ragasync.estimate import estimated_tokens

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter


@dataclass(frozen=True, slots=True)
class TokenizerCount:
    """Counts the tokens of a text with a tokenizer, without special tokens."""

    encode: Callable[[str], Any]
    name: str

    def __call__(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.encode(text))


def as_token_counter(tokenizer: object) -> Callable[[str], int]:
    """
    Turn a tokenizer into a token counter, a function from text to number of tokens.

    It accepts a `tokenizers.Tokenizer`, a tiktoken Encoding, a transformers tokenizer, or any
    function that takes a text and returns a number. Truncation and padding are turned off: with
    truncation, no long text would count more tokens than the model's limit, and chunks would have
    no bound. Special tokens that a model adds are not counted; leave room for them.

    Raises:
        TypeError: If it is none of these.
    """
    given: Any = tokenizer
    if hasattr(given, "encode_ordinary"):
        return TokenizerCount(given.encode_ordinary, f"tiktoken:{given.name}")
    if hasattr(given, "no_truncation"):
        written = given.to_str()
        digest = blake2b(written.encode(), digest_size=8).hexdigest()
        whole = type(given).from_str(written)  # a copy
        whole.no_truncation()
        whole.no_padding()
        encode = partial(whole.encode, add_special_tokens=False)
        return TokenizerCount(encode, f"tokenizers:{digest}")
    if hasattr(given, "encode") and hasattr(given, "name_or_path"):
        encode = partial(given.encode, add_special_tokens=False, truncation=False, verbose=False)
        return TokenizerCount(encode, f"transformers:{given.name_or_path}")
    if callable(given):
        return given  # type: ignore[no-any-return]
    raise TypeError(
        f"count_tokens must be a function of a text or a tokenizer, got {tokenizer!r:.200}"
    )


Spans: TypeAlias = Sequence[tuple[int, int]]
"""The start and end offsets of chunks, in order."""

# What ends a sentence without a space after it (Chinese, Japanese, Hindi, Ethiopian, Armenian,
# Khmer), what closes a quotation after it, and what ends a part of a sentence.
_ENDS = "。！？｡．…।॥።։។"
_ENDS_BEFORE_SPACE = ".!?؟۔"
_CLOSERS = "」』”’）】》"
_CLAUSES = "，、；：､،؛፣"
_UNSPACED = "\u0e00"  # Thai; of the scripts beyond it many write words without spaces
_Separators: TypeAlias = tuple[tuple[str, int], ...]

# Where to cut if there is no blank line, best first: a separator, and how many of its characters
# end the chunk.
_BOUNDARIES: tuple[_Separators, ...] = (
    tuple((f"{end}\n", 1) for end in _ENDS_BEFORE_SPACE + _ENDS)
    + tuple((f"{end}{closer}\n", 2) for end in "。！？" for closer in _CLOSERS),
    (("\n", 0),),
    tuple((f"{end} ", 1) for end in _ENDS_BEFORE_SPACE)
    + tuple((end, 1) for end in _ENDS)
    + tuple((f"{end}{closer}", 2) for end in "。！？" for closer in _CLOSERS),
    tuple((clause, 1) for clause in _CLAUSES),
    ((" ", 0), ("\t", 0), ("\u3000", 0)),
)
_ASCII_BOUNDARIES = tuple(
    tuple(each for each in separators if each[0].isascii())
    for separators in _BOUNDARIES
    if separators[0][0].isascii()
)
_VISIBLE = re.compile(r"\S")
_SENTENCE_START = re.compile(
    rf"(?<=[{_ENDS_BEFORE_SPACE}]\s)\S|(?<=\n)\S|(?<=[{_ENDS}])[^\s{_ENDS}{_CLOSERS}]"
    rf"|(?<=[{_ENDS}][{_CLOSERS}])[^\s{_ENDS}{_CLOSERS}]"
)
_WORD_START = re.compile(rf"(?<=\s)\S|(?<=[{_CLAUSES}])\S")


@explains_arguments
@dataclass(frozen=True, slots=True)
class RecursiveSplitter:
    """
    Split a text into chunks of at most `chunk_size` characters, at the best boundaries.

    Each chunk is filled to the limit and then cut back to the best boundary in its second half:
    before a heading, at a blank line, after a sentence that ends its line, at a line end, after a
    sentence, after a clause (`，、；：`), between words; inside a word only as a last resort.
    Sentences end with `.!?` and a space, or with `。！？।` and similar marks without one. Chunks
    are therefore at least half full, and small paragraphs are joined. Every character except white
    space is in some chunk. The running time is linear in the length of any text.

    Example:
        >>> from ragasync.documents import RecursiveSplitter
        >>> split = RecursiveSplitter(chunk_size=32)
        >>> for chunk in split("A bucket refills. It never overflows. First come, first served."):
        ...     print(chunk)
        <Chunk 0:17 'A bucket refills.'>
        <Chunk 18:37 'It never overflows.'>
        <Chunk 38:63 'First come, first served.'>

    Args:
        chunk_size: The maximum number of characters in a chunk, including the overlap.
        chunk_overlap: The maximum number of characters at the end of a chunk that the next chunk
            repeats. The overlap begins at a sentence if one starts in this range, else at a word.

    Raises:
        ValueError: If `chunk_size` is not positive, or `chunk_overlap` is not between 0 and half
            of it.
    """

    chunk_size: int = 1000
    chunk_overlap: int = 0

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_sizes(self.chunk_size, self.chunk_overlap)

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters, by which a store notices that chunks would change."""
        return (
            f"RecursiveSplitter/1(chunk_size={self.chunk_size}, chunk_overlap={self.chunk_overlap})"
        )

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Split a document or a text into chunks, in order; a blank text has none."""
        text = document.text if isinstance(document, Document) else document
        return [Chunk(text[start:end], start, end) for start, end in self.spans(text)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end offsets of each chunk of a text, in order."""
        size, overlap = self.chunk_size, self.chunk_overlap
        if not overlap:
            return _plain_spans(text, size)
        return list(spans(text, lambda start: start + size, lambda cut: cut - overlap))


def spans(
    text: str,
    reach: Callable[[int], int],
    back: Callable[[int], int],
    fits: Callable[[int, int], bool] | None = None,
) -> Iterator[tuple[int, int]]:
    """
    Yield the start and end offsets of each chunk of a text.

    `reach` maps a chunk's start to its furthest possible end, at least one character later; `back`
    maps a cut to the earliest start of the next chunk, the cut itself for no overlap. `fits` checks
    a chunk's size, for sizes such as tokens where a chunk can be too large even before its reach.
    """
    stop = len(text.rstrip())
    start = cut = 0
    while cut < stop:
        visible = _VISIBLE.search(text, cut)
        assert visible is not None  # `stop` is after the last one
        fresh = visible.start()
        start, limit = _beginning(text, cut, fresh, max(back(cut), start + 1), reach)
        end = _end(text, start, fresh, min(limit, stop), stop, fits)
        if start < fresh and _splits_word(text, end) and not _splits_word(text, fresh):
            # The overlap must not take the room of a word that fits without it.
            alone = _end(text, fresh, fresh, min(reach(fresh), stop), stop, fits)
            if not _splits_word(text, alone):
                start, end = fresh, alone
        cut = end
        yield start, start + len(text[start:cut].rstrip())


def _plain_spans(text: str, size: int) -> list[tuple[int, int]]:
    """
    Find what `spans` finds for chunks of at most `size` characters without overlap.

    With the default splitter every text passes here, so what `spans` asks its functions is written
    out.
    """
    found: list[tuple[int, int]] = []
    next_visible, rfind = _VISIBLE.search, text.rfind
    stop, cut = len(text.rstrip()), 0
    while cut < stop:
        fresh = next_visible(text, cut).start()  # type: ignore[union-attr]  # `stop` is after it
        start = rfind("\n", cut, fresh) + 1 or fresh
        if fresh - start > size // 2:
            start = fresh
        if stop <= start + size:
            cut = stop
        else:
            cut = _cut(text, start, fresh, start + size)
            if start < fresh and _splits_word(text, cut) and not _splits_word(text, fresh):
                # The indentation must not take the room of a word that fits without it.
                alone = _end(text, fresh, fresh, min(fresh + size, stop), stop, None)
                if not _splits_word(text, alone):
                    start, cut = fresh, alone
        ends_visibly = not text[cut - 1].isspace()
        found.append((start, cut if ends_visibly else start + len(text[start:cut].rstrip())))
    return found


def _beginning(
    text: str, cut: int, fresh: int, earliest: int, reach: Callable[[int], int]
) -> tuple[int, int]:
    """Return the start of the chunk after a cut, and its furthest possible end."""
    start = _start(text, cut, fresh, earliest)
    limit = reach(start)
    if fresh - start > (room := (limit - start) // 2):
        # The white space after the cut counts too: so a little less is repeated.
        start = _start(text, cut, fresh, max(fresh - room, earliest))
        limit = reach(start)
    if fresh - start > (limit - start) // 2:  # a long gap must not leave it without room
        start, limit = fresh, reach(fresh)
    return start, limit


def _end(
    text: str,
    start: int,
    fresh: int,
    limit: int,
    stop: int,
    fits: Callable[[int, int], bool] | None,
) -> int:
    """Return the end of the chunk from `start`, always after `fresh`."""
    cut = stop if stop <= limit else _cut(text, start, fresh, limit)
    while fits is not None and not fits(start, cut) and cut > fresh + 1:
        cut = _cut(text, start, fresh, cut - 1)
    return cut


def _start(text: str, cut: int, fresh: int, earliest: int) -> int:
    """Return the start of the chunk whose first new character is at `fresh`."""
    if earliest >= cut:
        return text.rfind("\n", cut, fresh) + 1 or fresh  # the indentation stays
    for boundary in (_SENTENCE_START, _WORD_START):
        if found := boundary.search(text, earliest, cut):
            return found.start()
    if _splits_word(text, earliest) and not _splits_word(text, cut):
        return fresh  # the end of a word says nothing
    return earliest


def _splits_word(text: str, at: int) -> bool:
    """Return whether a cut here is inside a word, in scripts with spaces between words."""
    pair = text[at - 1 : at + 1]
    return len(pair) == 2 and pair.isalnum() and max(pair) < _UNSPACED


def _cut(text: str, start: int, fresh: int, limit: int) -> int:
    """Return the best cut of the chunk from `start`, always after `fresh`."""
    half = max(fresh, start + (limit - start) // 2)
    if (cut := _at_blank_line(text, fresh, half, limit)) > fresh:
        return cut
    for separators in _ASCII_BOUNDARIES if text.isascii() else _BOUNDARIES:
        if (cut := _last(text, separators, half, limit)) > fresh:
            return cut
    space = _last(text, _BOUNDARIES[-1], fresh, half)
    return space if space > fresh else limit


def _at_blank_line(text: str, fresh: int, low: int, limit: int) -> int:
    """Return the last blank line, of those before a heading or top-level code if any, else -1."""
    best = text.rfind("\n\n\n", low, limit + 3)
    if text.find("#", low, limit + 3) >= 0:  # in reach: a text of megabytes has thousands of cuts
        best = max(best, text.rfind("\n\n#", low, limit + 3))
    return best if best > fresh else text.rfind("\n\n", low, limit + 2)


def check_sizes(size: int, overlap: int, name: str = "chunk_size") -> None:
    """Raise ValueError unless the size is positive and the overlap between 0 and half of it."""
    if size < 1:
        raise ValueError(f"{name} must be at least 1, got {size!r}")
    if not 0 <= overlap <= size // 2:
        raise ValueError(
            f"chunk_overlap must be between 0 and half of {name}={size!r}, got {overlap!r}"
        )


def _last(text: str, separators: _Separators, low: int, limit: int) -> int:
    """Return the last cut within `low` and `limit` at one of the separators; else -1."""
    best = -1
    for separator, kept in separators:
        found = text.rfind(separator, low, limit - kept + len(separator))
        if found >= 0:
            best = max(best, found + kept)
    return best


CHARS_A_TOKEN = 16
"""
Maximum number of characters per token in a chunk.

It bounds chunks of white space, and of text that a counter takes for one long word.
"""

_FULL = 0.9
_MANY = 20  # with fewer tokens, nine tenths would lose the end of a word
_USUAL = 4.0
_GUESSES = 4


@explains_arguments
@dataclass(frozen=True, slots=True)
class TokenSplitter:
    """
    Split a text into chunks of at most `max_tokens` tokens, at the boundaries of RecursiveSplitter.

    Chunks are filled to at least nine tenths before they are cut back to a good boundary. The
    finished chunk is counted, so that none exceeds the bound, even where a prefix has more tokens
    than the whole text because a merged pair of tokens was cut. The counter is called four to six
    times per chunk; with a real tokenizer, this takes about fifty times as long as splitting by
    characters.

    Example:
        >>> from ragasync.documents import TokenSplitter
        >>> split = TokenSplitter(8, count_tokens=lambda text: len(text.split()))
        >>> for chunk in split("A bucket refills. It never overflows. First come, first served."):
        ...     print(chunk)
        <Chunk 0:37 'A bucket refills. It never overflows.'>
        <Chunk 38:63 'First come, first served.'>

    Args:
        max_tokens: The maximum number of tokens in a chunk, including the overlap.
        chunk_overlap: The approximate number of tokens at the end of a chunk that the next chunk
            repeats.
        count_tokens: A function that counts the tokens of a text, or a tokenizer; see
            `as_token_counter`. The default is an estimate that tends to be too high.

    Raises:
        TypeError: If `count_tokens` is neither.
        ValueError: If `max_tokens` is not positive, or `chunk_overlap` is not between 0 and half
            of it; while splitting, if a single character exceeds the bound.
    """

    max_tokens: int = 256
    chunk_overlap: int = 0
    count_tokens: object = estimated_tokens
    _count: Callable[[str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes, and turn `count_tokens` into a token counter."""
        check_sizes(self.max_tokens, self.chunk_overlap, "max_tokens")
        object.__setattr__(self, "_count", as_token_counter(self.count_tokens))

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters, by which a store notices that chunks would change."""
        return (
            f"TokenSplitter/1(max_tokens={self.max_tokens}, chunk_overlap={self.chunk_overlap}, "
            f"count_tokens={known_function(self._count)})"
        )

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Split a document or a text into chunks, in order; a blank text has none."""
        text = document.text if isinstance(document, Document) else document
        rule = _Rule(text, self._count, self.max_tokens, self.chunk_overlap)
        found = spans(text, rule.reach, rule.back, rule.fits)
        return [Chunk(text[start:end], start, end) for start, end in found]


@dataclass(slots=True)
class _Rule:
    """Finds how far a number of tokens reaches in a text, with few calls of the counter."""

    text: str
    count: Callable[[str], int]
    tokens: int
    overlap: int
    chars_a_token: float = _USUAL

    def fits(self, start: int, end: int) -> bool:
        """Whether a chunk, without trailing white space, has at most this many tokens."""
        fits = self.count(self.text[start:end].rstrip()) <= self.tokens
        if not fits and end - start <= 1:
            raise ValueError(
                f"max_tokens={self.tokens} is too few: {self.text[start:end]!r} alone has "
                f"{self.count(self.text[start:end])}"
            )
        return fits

    def reach(self, start: int) -> int:
        """Furthest offset that the tokens reach after `start`, at least one character on."""
        room = min(len(self.text) - start, self.tokens * CHARS_A_TOKEN)
        size = self._longest(room, self.tokens, lambda size: self.text[start : start + size])
        return start + max(size, 1)

    def back(self, cut: int) -> int:
        """Earliest offset with at most the overlap's tokens between it and a cut."""
        if not self.overlap:
            return cut
        room = min(cut, self.overlap * CHARS_A_TOKEN)
        return cut - self._longest(room, self.overlap, lambda size: self.text[cut - size : cut])

    def _longest(self, room: int, tokens: int, piece: Callable[[int], str]) -> int:
        """Size of a piece with at least nine tenths of the tokens, but not too many."""
        low, high = 0, room + 1  # the largest size known to fit, the smallest known not to
        size = int(tokens * self.chars_a_token)
        guesses = 0
        while True:
            size = max(low + 1, min(size, high - 1, room))
            if size > room or low + 1 >= high:
                break
            counted = self.count(piece(size))
            if counted <= tokens:
                low = size
                if counted >= _FULL * tokens and tokens >= _MANY:
                    break
            else:
                high = size
            guesses += 1
            typical = size / max(counted, 1)
            size = int(0.97 * tokens * typical) if guesses < _GUESSES else (low + high) // 2
            if guesses >= _GUESSES and high - low <= max(1, low // 20):
                break
        if low:
            self.chars_a_token = max(low / tokens, 0.25)
        return low


@explains_arguments
@dataclass(frozen=True, slots=True)
class SemanticTextSplitter:
    """
    Split a text with the package semantic-text-splitter, by characters or tokens.

    It follows the Unicode rules for sentences and words. Compared with `RecursiveSplitter`, a few
    more chunks end at sentences, languages without spaces between words are supported, and
    splitting takes more than ten times as long by characters and hundreds of times by tokens.

    Example:
        >>> from ragasync.documents import SemanticTextSplitter
        >>> split = SemanticTextSplitter(32)
        >>> for chunk in split("A bucket refills. It never overflows. First come, first served."):
        ...     print(chunk)
        <Chunk 0:17 'A bucket refills.'>
        <Chunk 18:37 'It never overflows.'>
        <Chunk 38:63 'First come, first served.'>

    Args:
        chunk_size: The maximum number of characters in a chunk, including the overlap.
        chunk_overlap: The maximum number of characters at the end of a chunk that the next chunk
            repeats; with `max_tokens`, the number of tokens.
        max_tokens: The maximum number of tokens in a chunk, in place of `chunk_size`.
        count_tokens: A function that counts the tokens of a text, a tokenizer (see
            `as_token_counter`), or the name of an OpenAI model whose vocabulary the package
            contains. The default is an estimate that tends to be too high.

    Raises:
        MissingExtra: If semantic-text-splitter is not installed.
        TypeError: If `count_tokens` is none of these.
        ValueError: If a size is not positive, `chunk_overlap` is not between 0 and half of it, or
            no OpenAI model has that name.
    """

    chunk_size: int = 1000
    chunk_overlap: int = 0
    _: KW_ONLY
    max_tokens: int | None = None
    count_tokens: object = estimated_tokens
    _splitter: TextSplitter = field(init=False, repr=False, compare=False)
    _counter: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes, and that the package is installed, before a long run begins."""
        if self.max_tokens is None:
            check_sizes(self.chunk_size, self.chunk_overlap)
        else:
            check_sizes(self.max_tokens, self.chunk_overlap, "max_tokens")
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError:
            raise MissingExtra("SemanticTextSplitter", "semantic-text-splitter", "ingest") from None
        overlap, counter, given = self.chunk_overlap, "", self.count_tokens
        if self.max_tokens is None:
            splitter = TextSplitter(self.chunk_size, overlap=overlap)
        elif isinstance(given, str):
            counter = given
            try:
                splitter = TextSplitter.from_tiktoken_model(given, self.max_tokens, overlap)
            except Exception as error:  # the package does not export its error class
                raise ValueError(f"no vocabulary for {given!r}: {error}") from None
        else:
            count = as_token_counter(given)
            splitter = TextSplitter.from_callback(count, self.max_tokens, overlap)
            counter = known_function(count)
        object.__setattr__(self, "_splitter", splitter)
        object.__setattr__(self, "_counter", counter)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle the arguments, because the package's splitter cannot be pickled."""
        rebuild = partial(
            SemanticTextSplitter, max_tokens=self.max_tokens, count_tokens=self.count_tokens
        )
        return rebuild, (self.chunk_size, self.chunk_overlap)

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters, by which a store notices that chunks would change."""
        size = f"chunk_size={self.chunk_size}, chunk_overlap={self.chunk_overlap}"
        if self.max_tokens is not None:
            size = (
                f"max_tokens={self.max_tokens}, chunk_overlap={self.chunk_overlap}, "
                f"count_tokens={self._counter}"
            )
        return f"SemanticTextSplitter/1({size})"

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Split a document or a text into chunks, in order; a blank text has none."""
        text = document.text if isinstance(document, Document) else document
        pieces = self._splitter.chunk_indices(text)
        # Python counts more characters as white space than the package trims.
        kept = ((start, piece) for start, piece in pieces if not piece.isspace())
        return [Chunk(piece, start, start + len(piece)) for start, piece in kept]


# ── locations ───────────────────────────────────────────────────────────────────────────────────

MARKDOWN = frozenset({"", ".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"})
"""Suffixes of Markdown files; a text without a suffix is read as Markdown too."""

MAX_TITLES = 100
"""Maximum number of heading titles, above a chunk and in it, that are kept."""

PLACES = ("page_starts", "cell_starts", "headings")
"""
The metadata keys under which a loader gives locations in a document's text.

`page_starts` and `cell_starts` are the offsets of the first characters of pages and cells;
`headings` holds an (offset, level) pair for each heading, whose line is its title. Metadata of
another form under these keys is the user's own and is ignored here.
"""


def add_locations(document: Document, chunks: Iterable[Chunk]) -> list[Chunk]:
    r"""
    Add the locations of chunks, in their document, to the metadata of the chunks.

    `line` is the line number of the first character, counted from 1; if the text is that of the
    file, this is the line that an editor shows. `heading` holds the headings above the chunk, as in
    "Install > On Linux"; a heading that starts a chunk counts as above it, and a chunk with no
    heading above it gets the first heading inside it. `headings` lists the titles of all headings
    above the chunk or in it. `page`, and `cell` for notebooks, are added if the loader gives them
    (see `PLACES`). Existing metadata of a chunk is kept. A document that has a line of its own,
    such as a row of a table, keeps it.

    The running time is linear for any splitter.

    Example:
        >>> from ragasync.documents import Document, RecursiveSplitter, add_locations
        >>> text = "# Limits\n\nA bucket refills.\n\n# Retries\n\nWait, then try again."
        >>> guide = Document("guide.md", text)
        >>> chunks = add_locations(guide, RecursiveSplitter(chunk_size=32)(guide))
        >>> [(chunk.metadata["line"], chunk.metadata["heading"]) for chunk in chunks]
        [(1, 'Limits'), (5, 'Retries')]
        >>> [whole] = add_locations(guide, RecursiveSplitter()(guide))
        >>> whole.metadata["headings"]
        ['Limits', 'Retries']

    Args:
        document: the document that was split.
        chunks: its chunks, in any order.
    """
    given = list(chunks)
    order = sorted(range(len(given)), key=lambda place: given[place].start)
    spans = [(given[place].start, given[place].end) for place in order]
    for place, found in zip(order, _places(document, spans), strict=True):
        given[place] = given[place]._placed(found)
    return given


def chunks_at(document: Document, spans: Spans) -> list[Chunk]:
    """Build the chunks of a document, with locations, from (start, end) offsets in order."""
    text, metadata = document.text, document.metadata
    has_more = metadata and any(key in metadata for key in ("line", *PLACES))
    if has_more or _marks(document):
        return [
            Chunk._at(text[start:end], start, end, MappingProxyType(place))
            for (start, end), place in zip(spans, _places(document, spans), strict=True)
        ]
    chunks, line, counted = [], 1, 0  # lines alone, as in most texts
    for start, end in spans:
        line += text.count("\n", counted, start)
        counted = start
        chunks.append(Chunk._at(text[start:end], start, end, on_line(line)))
    return chunks


@lru_cache(maxsize=4096)
def on_line(line: int) -> Mapping[str, object]:
    """Metadata shared by all chunks on this line of their documents."""
    return MappingProxyType({"line": line})


def _places(document: Document, spans: Sequence[tuple[int, int]]) -> list[dict[str, object]]:
    """Locations of each span; the spans are in ascending order of starts."""
    metadata = document.metadata
    starts = [start for start, _ in spans]
    if "line" in metadata:
        places: list[dict[str, object]] = [{} for _ in starts]
    else:
        places = [{"line": line} for line in _lines(document.text, starts)]
    if marks := _marks(document):
        for found, (heading, titles) in zip(
            places, _headings(document.text, marks, spans), strict=True
        ):
            if heading:
                found["heading"] = heading
                found["headings"] = titles
    for name, key in (("page", "page_starts"), ("cell", "cell_starts")):
        if _is_ascending(offsets := metadata.get(key)):
            for found, start in zip(places, starts, strict=True):
                found[name] = max(1, bisect_right(offsets, start))
    return places


def _lines(text: str, starts: Iterable[int]) -> list[int]:
    """Line number of each offset; offsets must not decrease."""
    line, counted, lines = 1, 0, []
    for start in starts:
        line += text.count("\n", counted, start)
        counted = start
        lines.append(line)
    return lines


def _headings(
    text: str, marks: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]
) -> Iterator[tuple[str, list[str]]]:
    """
    Yield for each span the headings above it, joined, and all titles above it and in it.

    Without a heading above, the first heading in the span is used. Starts must not decrease.
    """
    above: list[tuple[int, str]] = []
    passed, joined, titles = 0, "", []
    for start, end in spans:
        if passed < len(marks) and marks[passed][0] <= start:
            while passed < len(marks) and marks[passed][0] <= start:
                offset, level = marks[passed]
                while above and above[-1][0] >= level:
                    above.pop()
                above.append((level, title_at(text, offset)))
                passed += 1
            titles = [title for _, title in above if title][-MAX_TITLES:]
            joined = " > ".join(titles)
        within = _titles_within(text, marks, passed, end)
        yield joined or next(iter(within), ""), list(dict.fromkeys([*titles, *within]))


def _titles_within(text: str, marks: Sequence[tuple[int, int]], place: int, end: int) -> list[str]:
    """Titles of the headings before an offset, beginning with the heading at `place`."""
    titles = []
    for offset, _ in marks[place : place + MAX_TITLES]:
        if offset >= end:
            break
        if title := title_at(text, offset):
            titles.append(title)
    return titles


def _marks(document: Document) -> Sequence[tuple[int, int]]:
    """Offset and level of each heading in a document, from its loader or from Markdown."""
    if _is_pairs(found := document.metadata.get("headings")):
        return found
    return list(markdown_headings(document.text)) if _is_markdown(document) else ()


def _is_ascending(found: object) -> TypeGuard[Sequence[int]]:
    """Whether a value is a list of offsets in ascending order."""
    return (
        isinstance(found, list | tuple)
        and all(type(offset) is int for offset in found)
        and all(one <= other for one, other in pairwise(found))
    )


def _is_pairs(found: object) -> TypeGuard[Sequence[tuple[int, int]]]:
    """Whether a value is a list of (offset, level) pairs in ascending order."""
    return (
        isinstance(found, list | tuple)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found)
        and all(type(level) is int for _, level in found)
        and _is_ascending([offset for offset, _ in found])
    )


def _is_markdown(document: Document) -> bool:
    """Whether a document is read as Markdown, by its suffix."""
    name = document.source or document.id
    dot = name.rfind(".")
    if dot < 0:
        return True
    suffix = name[dot:].lower()
    return suffix in MARKDOWN or "/" in suffix or "\\" in suffix
