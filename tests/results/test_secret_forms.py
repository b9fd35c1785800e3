"""Every form of a secret that people of this field quote is masked, and no harmless text is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, errors_dataframe

# Internals: single texts, without a run for each.
from ragasync.error_text import safe_text
from ragasync.redact import redact
from tests.support.secret_forms import HARMLESS, KEYS, SECRETS

pytestmark = pytest.mark.slow  # a thousand texts, and expressions that every Python reads alike

BOUND = 4096


def test_the_corpus_is_as_large_as_it_says():
    """At least 150 secret forms and 120 harmless texts, none of them twice."""
    assert len(set(SECRETS)) >= 150
    assert len(set(HARMLESS)) == len(HARMLESS) >= 120


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_no_secret_is_left_in_any_form(text: str, secret: str):
    """Alone, in the middle of a sentence, and masked once more."""
    for shown in (text, f"it failed: {text}", f"{text}\nand more"):
        assert secret in shown
        assert secret not in redact(shown)
        assert redact(redact(shown)) == redact(shown)


ESCAPES = [
    *("", r"\n", r"\r\n", r"\t", r"\\n", r"\x22", r"\u0022", "%22", "%3D", "%2522", "\x1b[31m"),
    *(r"\x1b[1;31m", r"\u001b[1m", r"\033[31m", r"\e[m"),
]


@pytest.mark.parametrize("before", ESCAPES)
def test_keys_are_known_behind_any_escape(before: str):
    """In JSON, in a repr, in an address, in the colours of a terminal."""
    shown = [redact(f"x {before}{key}{before}.") for key, _ in KEYS]
    assert [text for text, (_, secret) in zip(shown, KEYS, strict=True) if secret in text] == []


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_stay_to_the_letter(text: str):
    """Alone, and in the middle of others."""
    assert redact(text) == text
    for around in (f"it failed:\n{text}", f"{text}\nand more"):
        assert redact(around) == around


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_the_cut_of_a_long_message_leaves_no_half_of_a_secret(text: str, secret: str):
    """Wherever it falls: the word at the cut is dropped."""
    beginning = secret[:6]
    for start in range(BOUND - len(text), BOUND, 3):
        padding = ("word " * BOUND)[: start - 1] + " "
        shown = safe_text(padding + text + " and more" * BOUND)
        assert beginning not in shown
        assert len(shown) < BOUND + 100


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SECRETS), st.sampled_from(HARMLESS), st.sampled_from(HARMLESS))
def test_harmless_neighbours_hide_no_secret(form: tuple[str, str], before: str, after: str):
    """Each text begins a line, as in a message that somebody put together."""
    text, secret = form
    assert secret not in redact(f"{before}\n{text}\n{after}")


@pytest.mark.parametrize(
    "piece",
    [
        *(text for text, _ in SECRETS[::7]),
        *("--token ", "--a-", "auth=('", "auth=('a', '", "<key>", "key\n  ", "key.a", "key'), '"),
        *("api_keys=[", "api_keys=['", "cookie a=", "cookie: a='", "https://a", "sk-sk-", "-u a:"),
        *(
            "https://abcdefgh@",
            "key is ",
            "password ",
            "Client(key=",
            "client(client(",
            "gsk_aaaaaa",
        ),
    ],
)
def test_the_time_is_linear_in_the_text(piece: str):
    """200 KB of it: many minutes if any rule were quadratic, and the test has a timeout."""
    text = piece * (200_000 // len(piece))
    assert len(redact(text)) <= len(text) + text.count(piece) * 3


async def test_views_of_a_failure_are_masked_but_not_the_item():
    """Items are the user's own: they stay, and so do the exceptions."""
    text, secret = SECRETS[0]

    async def fail(_: str) -> None:
        raise ValueError(text)

    result = await AsyncBatchProcessor(fail, retry_count=0).process([secret])
    frame = errors_dataframe(result)
    assert frame["item"].tolist() == [secret]
    assert secret in str(result.errors[0])
    shown = (frame.drop(columns="item").to_string(), result.summary(), result._repr_html_())
    assert not any(re.search(secret, view) for view in shown)
