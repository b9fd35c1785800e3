"""The small word-vector model of the package wordllama as an embedder, always offline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders.hashing import check_texts, scaled_to_one
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DIMENSIONS = (64, 128, 256)

_loading = threading.Lock()


class WordLlamaEmbedder:
    """
    Embed texts as the average of the vectors of their tokens.

    The vectors are part of the package wordllama (extra `[ingest]`). They are loaded once per
    process, on first use (about a third of a second), and never downloaded. Unlike those of
    `HashingEmbedder`, they are similar for words of similar meaning; word order has no effect. The
    vector of a text without tokens is zero. Instances are thread-safe.

    Example:
        >>> from ragasync.documents import WordLlamaEmbedder
        >>> embed = WordLlamaEmbedder()
        >>> car, vehicle, poem = embed(["a car", "some vehicle", "a poem"])
        >>> bool(car @ vehicle > car @ poem)
        True

    Args:
        dimension: The length of a vector: 64, 128 or 256; shorter vectors are prefixes.

    Raises:
        ValueError: If `dimension` is something else.
        MissingExtra: If wordllama is not installed.
    """

    def __init__(self, dimension: int = 256) -> None:
        if dimension not in _DIMENSIONS:
            raise ValueError(f"dimension must be one of {_DIMENSIONS}, not {dimension!r}")
        if find_spec("wordllama") is None:
            raise MissingExtra("WordLlamaEmbedder", "wordllama", "ingest")
        self._dimension = dimension

    @property
    def name(self) -> str:
        """The name by which a store identifies the embedder of its vectors."""
        return f"wordllama-l2_supercat-{self._dimension}"

    @property
    def dimension(self) -> int:
        """The length of each vector."""
        return self._dimension

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """
        Return the vectors of the texts.

        Args:
            texts: The texts; lone surrogates in them count as question marks.

        Returns:
            A float32 array of shape `(len(texts), dimension)`, its rows of length 1 or 0.

        Raises:
            TypeError: When `texts` is a str or bytes, or one of its items is no str.
        """
        check_texts(texts)
        tokenizer, vectors = _model()
        encodable = [text.encode(errors="replace").decode() for text in texts]
        encoded = tokenizer.encode_batch(encodable, add_special_tokens=False)
        rows = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, encoding in zip(rows, encoded, strict=True):
            row[:] = _sum_of(encoding.ids, vectors[:, : self._dimension])
        return scaled_to_one(rows)

    def __repr__(self) -> str:
        return f"WordLlamaEmbedder(dimension={self._dimension})"


def _sum_of(tokens: Sequence[int], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of the tokens' vectors, in memory bounded by the vocabulary."""
    distinct, counts = np.unique(np.asarray(tokens, dtype=np.int64), return_counts=True)
    return counts.astype(np.float32) @ vectors[distinct]


def _model() -> tuple[Tokenizer, NDArray[np.float32]]:
    """Return the tokenizer and the vectors of its tokens, loaded by whoever comes first."""
    with _loading:
        return _load()


@cache
def _load() -> tuple[Tokenizer, NDArray[np.float32]]:
    """Load the model from the package's own folder."""
    # Importing wordllama configures the root logger, unless that has a handler already.
    bystander = logging.NullHandler()
    logging.getLogger().addHandler(bystander)
    try:
        import wordllama
    finally:
        logging.getLogger().removeHandler(bystander)
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    # The tokenizer pads every text of a batch to the longest: memory without bound.
    model.tokenizer.no_padding()
    return model.tokenizer, np.asarray(model.embedding, dtype=np.float32)
