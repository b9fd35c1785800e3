"""The bound that adapts, as pure arithmetic: each rule by itself."""

from __future__ import annotations

import pytest

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.adaptive import FIRST, LOOK_EVERY, REST, ConcurrencyLimit
from ragasync._limits.samples import CallEnd, CallSample, Latency
from ragasync._retries.classify import congestion


class Rounds:
    """Makes as many calls at once as the bound allows, round after round."""

    def __init__(self, bound: ConcurrencyLimit) -> None:
        self.bound = bound
        self.seen: list[int] = []

    def one(self, seconds: float = 1.0, how: CallEnd = "success", used: float = 1.0) -> int:
        """Make one round, a call after the other, and return the bound after it."""
        concurrent = max(1, int(self.bound.bound * used))
        for began in [self.bound.begin(concurrent) for _ in range(concurrent)]:
            self.bound.end(began, seconds, how)
        self.seen.append(self.bound.bound)
        return self.bound.bound

    def until(self, bound: int) -> None:
        """Make rounds whose latency holds until the bound is reached."""
        while self.one() < bound:
            assert len(self.seen) < 1_000


@pytest.fixture
def rounds() -> Rounds:
    """Rounds of a bound that has just begun."""
    return Rounds(ConcurrencyLimit())


def refuse(bound: ConcurrencyLimit, began: CallSample) -> int:
    """Refuse a call, as with a 429, and return the bound."""
    bound.end(began, 0.1, "rate_limited")
    return bound.bound


def bounds_of(bound: ConcurrencyLimit, every: int, how: CallEnd) -> list[int]:
    """Return the bound after each of many calls, of which every so manieth fails."""
    seen = []
    for number in range(10_000):
        bound.end(bound.begin(bound.bound), 1.0, how if number % every == 3 else "success")
        seen.append(bound.bound)
    return seen


def test_it_doubles_with_each_round_while_latency_holds(rounds: Rounds):
    """The slow start."""
    assert [rounds.one() for _ in range(5)] == [8, 16, 32, 64, 128]


def test_it_never_goes_beyond_its_most():
    """However well the service bears it."""
    rounds = Rounds(ConcurrencyLimit(most=50))
    assert max(rounds.one() for _ in range(40)) == 50


def test_it_stays_where_the_bound_is_not_reached(rounds: Rounds):
    """Something else holds back: more would not be used."""
    assert {rounds.one(used=0.5) for _ in range(40)} == {FIRST}


def test_congestion_cuts_by_a_quarter_once_for_all_calls_begun_before(rounds: Rounds):
    """Many refusals at once are one event."""
    rounds.until(32)
    calls = [rounds.bound.begin(32) for _ in range(32)]
    assert {refuse(rounds.bound, call) for call in calls} == {24}


def test_a_single_overload_or_timeout_is_no_sign_but_several_are(rounds: Rounds):
    """A 503 comes now and then to a service that has little to do: one in twenty may."""
    rounds.until(32)
    calls = [rounds.bound.begin(32) for _ in range(6)]
    for call, bound in zip(calls, [32, 32, 32, 24, 24, 24], strict=True):
        rounds.bound.end(call, 1.0, "overloaded")
        assert rounds.bound.bound == bound


@pytest.mark.parametrize("how", ["rate_limited", "overloaded"])
def test_congestion_that_goes_on_after_a_cut_is_another_event(rounds: Rounds, how: CallEnd):
    """And a third: down to a single call, and never below."""
    rounds.until(32)
    seen = [rounds.one(0.1, how) for _ in range(200)]
    assert seen[0] == 24
    assert 18 in seen
    assert seen[-1] == 1


def test_the_items_own_errors_are_no_congestion(rounds: Rounds):
    """A 400 says nothing of how many there are."""
    rounds.until(32)
    assert {rounds.one(0.1, "error") for _ in range(10)} == {32}


def test_a_step_that_made_calls_slower_is_taken_back(rounds: Rounds):
    """
    Latency holds at 32, and at 64 it is 3 times as long: back to the bound that held.

    The knee of a service that melts is at 64 / sqrt(3) = 37, of another below; so the search goes
    half way to a tenth above that.
    """
    rounds.until(64)
    assert rounds.one(3.0) == 32
    rounds.one()
    assert rounds.one() == (32 + 41) // 2


def test_doubled_latency_at_a_bound_that_held_cuts_by_a_quarter(rounds: Rounds):
    """The knee has moved down."""
    rounds.until(64)
    rounds.one(3.0)
    assert rounds.bound.bound == 32
    assert 24 in [rounds.one(2.5) for _ in range(4)]


def test_a_cut_without_relief_is_taken_back(rounds: Rounds):
    """The service is slower now whatever one does: it does not go down to nothing."""
    rounds.until(64)
    rounds.one(3.0)
    seen = [rounds.one(2.5) for _ in range(60)]
    assert 24 in seen
    assert min(seen[-20:]) >= 32


def test_it_settles_below_what_was_too_much_and_tries_again_later(rounds: Rounds):
    """Most rounds are at the highest bound that held, 40; some a tenth above, or below."""
    seen = [rounds.one(1.0 if rounds.bound.bound <= 40 else 2.0) for _ in range(400)][20:]
    assert sum(38 <= bound <= 40 for bound in seen) > 0.8 * len(seen)
    assert any(bound > 40 for bound in seen)
    assert sum(seen) / len(seen) > 0.94 * 40


def test_it_goes_on_up_when_the_knee_has_moved_up(rounds: Rounds):
    """By steps that double again."""
    for _ in range(50):
        rounds.one(1.0 if rounds.bound.bound <= 40 else 2.0)
    assert max(rounds.one() for _ in range(8 * REST)) > 160


def test_it_looks_below_now_and_then(rounds: Rounds):
    """What calls take when there are few is measured anew, with a quarter fewer."""
    seen = [rounds.one(1.0 if rounds.bound.bound <= 40 else 2.0) for _ in range(6 * LOOK_EVERY)]
    assert any(28 <= bound <= 30 for bound in seen[40:])


@pytest.mark.parametrize("every", [20, 7, 4])
def test_overload_that_a_cut_does_not_lessen_is_taken_for_what_it_is(every: int):
    """At a fixed share of calls, whatever one does, from the beginning: it goes up all the same."""
    bound = ConcurrencyLimit(most=200)
    assert max(bounds_of(bound, every, "overloaded")) == 200
    assert bound.bound >= 150


def test_refusals_that_a_cut_does_not_lessen_are_taken_for_what_they_are():
    """Where a cohort is large enough to tell: once in twenty calls, whatever one does."""
    bound = ConcurrencyLimit(first=128)
    assert bounds_of(bound, 20, "rate_limited")[-1] >= 96


def test_a_median_of_few_calls_is_no_proof():
    """Twice the median of eight calls that lie far apart may be chance; of a thousand it is not."""
    base = Latency(1.0, 1_000, spread=0.8)
    assert not Latency(1.9, 8, spread=0.8).above(base, 1.12)
    assert Latency(1.9, 1_000, spread=0.8).above(base, 1.12)


def test_calls_that_have_not_ended_count_as_the_longest():
    """Else those that end first would make it look fast."""
    assert Latency.of([1.0, 2.0, 3.0], unended=2).seconds == 3.0


class _Reply(Exception):
    """An error with a status."""

    def __init__(self, status: int) -> None:
        self.status_code = status


class ReadTimeout(Exception):
    """As clients name theirs, without making it a TimeoutError."""


def test_a_429_is_a_refusal():
    """The service says itself that there are too many."""
    assert congestion(_Reply(429)) == "rate_limited"


@pytest.mark.parametrize("error", [_Reply(503), TimeoutError(), ReadTimeout()])
def test_overload_and_timeouts_are_congestion(error: Exception):
    """Fewer calls at once may have spared them."""
    assert congestion(error) == "overloaded"


@pytest.mark.parametrize("error", [_Reply(400), _Reply(500), ValueError(), ConnectionError()])
def test_other_errors_are_no_congestion(error: Exception):
    """They come however few calls there are."""
    assert congestion(error) is None
