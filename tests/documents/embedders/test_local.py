"""Embedders: what their vectors hold, and that they hold it everywhere."""

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync.documents import HashingEmbedder, WordLlamaEmbedder, embedders
from ragasync.errors import MissingExtra

ANY_TEXT = st.text(st.characters())
"""Lone surrogates, NULs and emojis among them."""


EXPECTED_V1 = [
    *(0.0, 0.10135633, 0.11539603, 0.14133069, 0.02593466, 0.0, 0.0, -0.25171894),
    *(0.18844092, 0.0140397, -0.54380238, -0.31905821, -0.11539603, -0.6165024),
    *(-0.14133069, -0.21403076),
]


def lengths(rows):
    """Return the length of each row."""
    return np.linalg.norm(rows.astype(np.float64), axis=1)


@given(st.lists(ANY_TEXT, max_size=5))
def test_rows_have_length_one_or_zero(texts):
    """Whatever the texts are, no row is NaN or of another length."""
    rows = HashingEmbedder(64)(texts)
    assert rows.shape == (len(texts), 64)
    assert rows.dtype == np.float32
    assert all(length == 0 or abs(length - 1) < 1e-5 for length in lengths(rows))


@given(ANY_TEXT, st.lists(ANY_TEXT, max_size=5))
def test_a_text_has_one_vector_whatever_its_batch(text, others):
    """A text's row does not depend on what it is embedded with."""
    embed = HashingEmbedder(64)
    np.testing.assert_array_equal(embed([text])[0], embed([*others, text])[-1])


def test_a_batch_longer_than_one_pass_keeps_its_order():
    """Texts beyond the first pass have the rows that they have alone."""
    embed = HashingEmbedder(32)
    texts = [f"text number{n}" for n in range(600)]
    rows = embed(texts)
    for n in (0, 255, 256, 599):
        np.testing.assert_array_equal(rows[n], embed([texts[n]])[0])


def test_a_text_without_words_is_a_row_of_zeros():
    """Nothing to hash gives zeros, alone and beside others."""
    rows = HashingEmbedder()(["", "?! ... ___", "a word"])
    assert lengths(rows).tolist() == pytest.approx([0, 0, 1])


def test_no_texts_give_no_rows():
    """An empty batch has the right shape."""
    assert HashingEmbedder(16)([]).shape == (0, 16)


def test_the_vectors_are_the_same_in_every_process():
    """Another process, with other hash seeds, gives the same bytes."""
    text = "Refill the bucket; 忘れる naïve 🎈"
    code = (
        "import sys; from ragasync.documents.embedders import HashingEmbedder;"
        f"sys.stdout.write(HashingEmbedder(64)([{text!r}]).tobytes().hex())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONUTF8": "1"},
    ).stdout
    assert other == HashingEmbedder(64)([text]).tobytes().hex()


def test_the_hashing_of_version_1_stays_as_it_is():
    """A store made today is searched by tomorrow's ragasync: a change needs a new name."""
    row = HashingEmbedder(16)(["token buckets refill, and refill again"])[0]
    assert HashingEmbedder(16).name == "hashing-16-v2"
    np.testing.assert_allclose(row, EXPECTED_V1, atol=1e-6)


def test_forms_of_a_word_are_nearer_than_other_words():
    """The n-grams let `retry` meet `retries`."""
    embed = HashingEmbedder()
    rows = embed(["retrying a request", "requests are retried", "sorting the lists"])
    assert rows[0] @ rows[1] > 0.2 > rows[0] @ rows[2]


def test_case_does_not_matter():
    """Words are lower-cased."""
    upper, lower = HashingEmbedder()(["Token Bucket", "token bucket"])
    np.testing.assert_array_equal(upper, lower)


def test_common_words_count_little():
    """What two texts share counts less where it is common English."""
    embed = HashingEmbedder()
    rows = embed(["the bucket of the token", "the folder of the reader", "token bucket"])
    assert rows[0] @ rows[2] > 0.9
    assert rows[0] @ rows[1] < 0.2


def test_repeating_a_word_counts_less_and_less():
    """A word that stands there a hundred times does not drown the other."""
    embed = HashingEmbedder()
    one, many, bucket = embed(["token bucket", "token " * 100 + "bucket", "bucket"])
    assert one @ bucket > many @ bucket > 0.1


def test_a_megabyte_without_a_space_is_embedded():
    """A run of letters is cut into pieces instead of being one giant word."""
    assert lengths(HashingEmbedder()(["abcdefghij" * 100_000])) == pytest.approx([1])


def test_the_name_tells_the_embedder():
    """A hashing embedder is made again from its name; other names are not its."""
    assert HashingEmbedder.from_name("hashing-512-v2").dimension == 512
    for name in ("wordllama-l2_supercat-256", "hashing-512-v3", "hashing-0-v2", "hashing--1-v2"):
        assert HashingEmbedder.from_name(name) is None


def test_an_embedder_travels_to_another_process():
    """A pickled embedder gives the same vectors."""
    embed = pickle.loads(pickle.dumps(HashingEmbedder(32)))
    np.testing.assert_array_equal(embed(["a token"]), HashingEmbedder(32)(["a token"]))


@pytest.mark.parametrize("dimension", [0, -1, 1.5, "8"])
def test_a_wrong_dimension_is_refused(dimension):
    """The constructor checks its argument."""
    with pytest.raises(ValueError, match="positive int"):
        HashingEmbedder(dimension)


@pytest.mark.parametrize("make", [HashingEmbedder, WordLlamaEmbedder])
@pytest.mark.parametrize("texts", ["one text", b"bytes", ["a", None]])
def test_what_is_no_list_of_texts_is_refused(make, texts):
    """A single text is not taken for a list of characters."""
    with pytest.raises(TypeError, match=r"list of texts|must be a str"):
        make()(texts)


@pytest.mark.real_time
@pytest.mark.parametrize("make", [HashingEmbedder, WordLlamaEmbedder])
def test_threads_get_the_same_vectors(make):
    """Many threads at once, from the very first call, see what one sees."""
    texts = [f"bucket{n} of tokens" for n in range(50)]
    embed, together = make(), threading.Barrier(8)

    def work(_):
        together.wait()
        return embed(texts)

    with ThreadPoolExecutor(8) as threads:
        for rows in threads.map(work, range(8)):
            np.testing.assert_array_equal(rows, embed(texts))


def test_wordllama_needs_no_network(monkeypatch):
    """The model comes out of the package, though every connection fails."""
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("it went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    embedders._load_model.cache_clear()
    assert lengths(WordLlamaEmbedder()(["a token bucket"])) == pytest.approx([1])


def test_wordllama_gives_the_vectors_of_the_package():
    """Our pooling, which pads nothing, agrees with the model's own."""
    from pathlib import Path

    import wordllama

    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    texts = ["a token bucket", "the quick brown fox jumps over the lazy dog", "naïve 🎈"]
    np.testing.assert_allclose(WordLlamaEmbedder()(texts), model.embed(texts, norm=True), atol=1e-5)


@pytest.mark.parametrize("dimension", [64, 128, 256])
def test_wordllama_shortens_its_vectors(dimension):
    """Each dimension gives rows of its size, and its own name."""
    embed = WordLlamaEmbedder(dimension)
    assert embed.name == f"wordllama-l2_supercat-{dimension}"
    assert embed(["one", "two"]).shape == (2, dimension)


def test_wordllama_gives_zeros_for_a_text_without_tokens():
    """An empty string is zeros, not NaN, and changes nothing for its neighbours."""
    rows = WordLlamaEmbedder()(["", "a token"])
    assert lengths(rows).tolist() == pytest.approx([0, 1])
    assert WordLlamaEmbedder()([]).shape == (0, 256)


@settings(max_examples=30)
@given(st.lists(ANY_TEXT, max_size=4))
def test_wordllama_rows_have_length_one_or_zero(texts):
    """Whatever the texts are, lone surrogates included, no row is NaN."""
    assert all(
        length == 0 or abs(length - 1) < 1e-4 for length in lengths(WordLlamaEmbedder()(texts))
    )


def test_wordllama_leaves_logging_alone():
    """Importing the package sets up no logging for the whole process."""
    code = (
        "import logging; from ragasync.documents.embedders import WordLlamaEmbedder;"
        "WordLlamaEmbedder()(['a']); root = logging.getLogger();"
        "assert not root.handlers and root.level == logging.WARNING, (root.handlers, root.level)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_wordllama_names_the_pip_command_when_it_is_missing(monkeypatch):
    """Without the package, the constructor says how to install it."""
    monkeypatch.setattr(embedders, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "ragasync\[ingest\]"'):
        WordLlamaEmbedder()


def test_wordllama_has_three_dimensions():
    """Another one is refused with those there are."""
    with pytest.raises(ValueError, match="64, 128, 256"):
        WordLlamaEmbedder(100)
