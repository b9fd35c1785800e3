"""How many tokens a text has, and which texts are refused before they cost a call."""

import inspect
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import ItemTooLargeError

# Internals: parts of an embedder that no run starts or stops on demand.
from ragasync.documents.embedders.openai import TokenBudget, token_budget
from ragasync.documents.splitters import estimated_tokens
from tests.support.requirements import needs

TEXTS = {
    "English": "Results were checked by several teams, and nobody could explain the difference. ",
    "German": "Die Begrenzung wurde eingeführt, damit die Nachbarn wieder ruhig schlafen können. ",
    "Russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая по-своему. ",
    "Chinese": "许多公司都在研究如何利用大规模语言模型提高效率，也有人表示怀疑。",
    "Japanese": "人工知能は私たちの生活を変えつつあり、多くの企業が研究しています。",
    "Hindi": "कई कंपनियाँ इस बात का अध्ययन कर रही हैं कि यह हमारे जीवन को कैसे बदलेगा। ",
    "Python": inspect.getsource(json.JSONEncoder),
}


def counted(text: str) -> int:
    """Return how many tokens the vocabulary of OpenAI's embedding models makes of a text."""
    needs("semantic_text_splitter")
    from semantic_text_splitter import TextSplitter

    low, high = 1, len(text.encode())
    while low < high:
        middle = (low + high) // 2
        splitter = TextSplitter.from_tiktoken_model("text-embedding-3-small", middle, trim=False)
        low, high = (low, middle) if len(splitter.chunks(text)) <= 1 else (middle + 1, high)
    return low


@pytest.mark.parametrize("language", TEXTS)
def test_the_estimate_is_rather_too_high(language):
    """Never below the real count of prose and code, and within 1.7 times of it."""
    text = TEXTS[language] * 3
    assert 1 <= estimated_tokens(text) / counted(text) <= 1.7


@given(st.text(st.characters()), st.text(st.characters()))
def test_a_longer_text_has_not_fewer_tokens(text, more):
    """Lone surrogates among them."""
    assert 0 <= estimated_tokens(text) <= estimated_tokens(text + more)


@given(st.text(min_size=1))
def test_an_estimate_refuses_only_beyond_twice_the_bound(text):
    """What lies between is as heavy as a whole batch, so that it goes alone."""
    weigh, tokens = token_budget(None, 10, 100), estimated_tokens(text)
    if tokens > 20:
        with pytest.raises(ItemTooLargeError, match=rf"about {tokens:,} tokens.*takes 10"):
            weigh(text)
    else:
        assert weigh(text) == (tokens if tokens <= 10 else 100)


def test_a_count_refuses_what_is_over_the_bound():
    """A function that counts is believed to the token."""
    weigh = token_budget(len, 10, 100)
    assert weigh("x" * 10) == 10
    with pytest.raises(
        ItemTooLargeError, match=r"11 characters has 11 tokens, and the model takes 10"
    ):
        weigh("x" * 11)


def test_without_a_bound_a_text_weighs_a_batch_at_most():
    """Nothing is refused."""
    assert token_budget(len, None, 100)("x" * 1000) == 100


def test_an_empty_text_is_refused():
    """A service would refuse it together with all of its batch."""
    with pytest.raises(ValueError, match="got an empty one"):
        token_budget(None, 10, 100)("")


def test_a_text_is_counted_once():
    """Counting takes long, and a text is asked for several times."""
    counted_texts: list[str] = []

    def count(text: str) -> int:
        counted_texts.append(text)
        return len(text)

    weigh = token_budget(count, 10, 100)
    assert [weigh("abc"), weigh("abc"), weigh.count("abc")] == [3, 3, 3]
    assert counted_texts == ["abc"]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [((7, 10, 100), TypeError), ((None, 0, 100), ValueError), ((None, 10, 0), ValueError)],
)
def test_wrong_arguments_are_refused_at_once(arguments, kind):
    """Before any text is weighed."""
    with pytest.raises(kind):
        token_budget(*arguments)


def test_a_weigher_is_what_the_estimate_makes_it():
    """The default counts nothing."""
    assert token_budget(None, 8191, 300_000) == TokenBudget(estimated_tokens, False, 8191, 300_000)
