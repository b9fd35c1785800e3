"""Rate limits that a service states in its headers, and a limiter that heeds them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

# Internals: the verdict on each error, without a run for each.
from ragasync._retries.retry_after import seconds_of
from ragasync.documents.embedders.openai import UNLIMITED, HeaderRateLimiter
from tests.support.services import about, now


def stated(kind: str, **parts: str) -> dict[str, str]:
    """Return headers that say so of one kind."""
    return {f"x-ratelimit-{part}-{kind}": text for part, text in parts.items()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("250ms", 0.25),
        ("2m59.56s", 179.56),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("7m12s", 432.0),
        ("500us", 0.0005),
        ("0s", 0.0),
        ("12", 12.0),
        (" 0.5 ", 0.5),
        *((text, None) for text in ("", "soon", "1s!", "-1s", "s", "1 s", "nan", "inf", "-3")),
    ],
)
def test_lengths_of_time_are_read_as_services_write_them(text, seconds):
    """Sums of units, or a number of seconds; else nothing."""
    assert seconds_of(text) == (seconds if seconds is None else about(seconds))


async def test_requests_and_tokens_are_told_apart():
    """Each has its own three headers; a missing one, or one that is no number, changes nothing."""
    headers = stated("requests", limit="3000", remaining="2999", reset="20ms")
    headers |= stated("tokens", limit="many", remaining="0")
    requests, tokens = HeaderRateLimiter("requests", None), HeaderRateLimiter("tokens", None)
    for heard in (requests, tokens):
        heard.update(headers)
        heard.update({})
    assert (requests.limiter.rate, tokens.limiter.rate) == (about(50.0), about(UNLIMITED))
    assert await admitted(requests, 1) == await admitted(tokens, 1) == [about(0)]


@pytest.mark.parametrize("limit", ["0", "-60", "inf", "nan", "1e400", "a lot", ""])
def test_a_limit_that_none_can_keep_is_not_taken(limit):
    """The rate stays as it was."""
    heard = HeaderRateLimiter("requests", None)
    heard.update(stated("requests", limit=limit))
    assert heard.limiter.rate == about(UNLIMITED)


@given(st.dictionaries(st.sampled_from(["limit", "remaining", "reset"]), st.text()))
def test_no_header_makes_trouble(parts):
    """Whatever a service sends, the rate stays one that a limiter can keep."""
    heard = HeaderRateLimiter("tokens", None)
    heard.update(stated("tokens", **parts))
    assert 0 < heard.limiter.rate < float("inf")


async def admitted(heard: HeaderRateLimiter, count: int) -> list[float]:
    """Return when so many calls were let through, from now on."""
    began = now()
    times = []
    for _ in range(count):
        await heard.limiter.acquire()
        times.append(now() - began)
    return times


async def test_nothing_holds_until_a_limit_is_stated_and_then_it_holds():
    """60 a minute: the bucket of one and a bit, and then one a second."""
    heard = HeaderRateLimiter("requests", None)
    assert await admitted(heard, 1000) == [about(0)] * 1000
    await asyncio.sleep(0.001)  # as any answer takes
    heard.update(stated("requests", limit="60"))
    assert await admitted(heard, 4) == [about(seconds) for seconds in (0, 0.98, 1.98, 2.98)]
    heard.update(stated("requests", limit="120"))
    assert heard.limiter.rate == about(2)


async def test_those_who_wait_see_a_new_limit_at_once():
    """A minute's wait becomes one of a second."""
    heard = HeaderRateLimiter("requests", None)
    heard.update(stated("requests", limit="1"))
    await heard.limiter.acquire()
    waiting = asyncio.create_task(admitted(heard, 1))
    await asyncio.sleep(1)
    heard.update(stated("requests", limit="60"))
    (waited,) = await waiting
    assert 1 < waited < 3


def test_a_rate_that_was_given_or_set_by_hand_stays():
    """The user knows better than the header."""
    given_rate = HeaderRateLimiter("requests", 600)
    given_rate.update(stated("requests", limit="60"))
    assert given_rate.limiter.rate == about(10)
    by_hand = HeaderRateLimiter("requests", None)
    by_hand.update(stated("requests", limit="60"))
    by_hand.limiter.rate = 5
    by_hand.update(stated("requests", limit="120"))
    assert by_hand.limiter.rate == about(5)


@pytest.mark.parametrize(("reset", "pause"), [("250ms", 0.25), ("6m0s", 60.0), ("0s", 0.0)])
@pytest.mark.parametrize("rate", [None, 6000])
async def test_where_nothing_remains_it_waits_for_the_reset_but_a_minute_at_most(
    rate, reset, pause
):
    """Whether the rate was given or not: what is used up is used up."""
    heard = HeaderRateLimiter("requests", rate)
    heard.update(stated("requests", remaining="0", reset=reset))
    assert await admitted(heard, 1) == [about(pause)]


async def test_what_remains_or_what_is_said_of_the_other_kind_makes_nobody_wait():
    """One left is enough for one."""
    heard = HeaderRateLimiter("requests", None)
    heard.update(stated("requests", remaining="1", reset="1m"))
    heard.update(stated("tokens", remaining="0", reset="1m", limit="60"))
    assert await admitted(heard, 1) == [about(0)]
