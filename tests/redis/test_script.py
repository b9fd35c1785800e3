"""The script in Redis assigns the slots at which a limiter in memory grants, to microseconds."""

import random
from collections.abc import Iterator

import pytest

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.bucket import Bucket, WindowBucket
from ragasync.redis.script import SCRIPT, Reply, Request, Terms
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.real_time

ON_A_CLOCK_OF_OURS = SCRIPT.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
BEGAN = 1_700_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests of this file."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Asked:
    """The script in Redis, asked at times that the test sets."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.asked()
        self._client.flushall()

    def at(self, now: float, request: Request) -> Reply:
        """Ask at a time in seconds, which is rounded to microseconds."""
        microseconds = round(now * 1e6)
        self._client.delete("clock")
        self._client.rpush("clock", BEGAN + microseconds // 10**6, microseconds % 10**6)
        script = ON_A_CLOCK_OF_OURS
        answer = self._client.eval(script, 2, "key", "log", *request.arguments())
        (epoch, *numbers), waits = answer
        return Reply.read([[epoch.encode(), *numbers], waits])


def request(
    *weights: float,
    terms: Terms,
    sets_terms: bool = False,
    pause: float = 0.0,
    epoch: str = "",
    ahead=0.0,
) -> Request:
    """Return a request, of one that knows nothing by default."""
    return Request(epoch, ahead, pause, terms, sets_terms, weights)


def slots(bucket: Bucket, now: float, last: float, weights: tuple[float, ...]) -> list[float]:
    """Return when a line at this bucket, the last of which goes at `last`, goes on."""
    found = []
    for weight in weights:
        at = max(now, last)
        last = at + bucket.delay(weight, at)
        bucket.take(weight, last)
        found.append(last)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("per", [0.0, 2.0])
def test_places_are_when_a_limiter_in_memory_grants(server: RedisServer, seed: int, per: float):
    """Over weights, rests, pauses and new rates at random."""
    chance, asked = random.Random(seed), Asked(server)
    rate, burst = chance.choice([3.0, 50.0, 999.9]), chance.choice([1.0, 7.5, 40.0])
    bucket: Bucket = WindowBucket(rate * per, per + 0.02) if per else Bucket(rate, burst)
    if isinstance(bucket, WindowBucket):
        bucket.rate, bucket.burst, bucket.interval = rate, burst, 1 / rate
        bucket.limit = rate * per
    now = last = 0.25
    bucket.tat = now + (burst - 1) / rate
    for _ in range(150):
        weights = tuple(chance.choice([0.5, 1, 1, 3, rate * per or 60]) for _ in range(3))
        pause = chance.choice([0.0] * 9 + [3.0])
        sets_terms = not per and chance.random() < 0.1
        if sets_terms:
            rate = chance.choice([3.0, 50.0, 999.9])
            bucket.change_rate(rate, burst, max(now, last))
        bucket.pause(now + pause)
        reply = asked.at(
            now,
            request(*weights, terms=Terms(rate, burst, per), sets_terms=sets_terms, pause=pause),
        )
        expected = slots(bucket, now, last, weights)
        assert [now + wait for wait in reply.waits] == pytest.approx(expected, abs=5e-6)
        assert now + reply.ahead == pytest.approx(bucket.tat, abs=5e-6)
        last = expected[-1]
        now = round(now + chance.choice([0.0, 0.001, 0.1, 5.0]) + max(0, last - now - 9), 6)


@pytest.mark.parametrize("seed", range(4))
def test_places_follow_corrections_as_those_of_a_limiter_in_memory(server: RedisServer, seed: int):
    """A surplus returned, never above the burst, and a shortfall as a debt."""
    chance, asked = random.Random(seed), Asked(server)
    terms = Terms(50.0, 40.0)
    bucket = Bucket(terms.rate, terms.burst)
    now = last = 0.25
    bucket.tat = now + (terms.burst - 1) / terms.rate
    epoch = asked.at(now, request(terms=terms)).epoch
    for _ in range(150):
        weights = tuple(chance.choice([1, 3, 30]) for _ in range(2))
        pairs = [(chance.choice([0, 1, 30]), chance.choice([0, 2, 30, 70])) for _ in range(2)]
        for pair in pairs:
            bucket.correct(*pair, now)
        reply = asked.at(now, Request(epoch, 0.0, 0.0, terms, False, weights, corrections=pairs))
        expected = slots(bucket, now, last, weights)
        assert [now + wait for wait in reply.waits] == pytest.approx(expected, abs=5e-6)
        assert now + reply.ahead == pytest.approx(bucket.tat, abs=5e-6)
        last = expected[-1]
        now = round(max(now, last) + chance.choice([1e-5, 0.001, 0.1, 5.0]), 6)


def test_a_window_counts_what_was_used(server: RedisServer):
    """The oldest place of this weight is replaced; a shortfall is counted from now on."""
    asked, terms = Asked(server), Terms(50.0, 1000.0, 2.0)  # 100 in two seconds
    epoch = asked.at(0.0, request(40.0, 60.0, terms=terms)).epoch

    def ask(now: float, *weights: float, corrections: list[tuple[float, float]]) -> Reply:
        return asked.at(
            now, Request(epoch, 0.0, 0.0, terms, False, weights, corrections=corrections)
        )

    at = 25.0  # the bucket is full again, and the window empty
    assert ask(at, 40.0, 60.0, corrections=[]).waits == pytest.approx([0.0, 0.0])
    assert ask(at, 30.0, corrections=[(40.0, 10.0)]).waits == pytest.approx([0.0])
    assert ask(at + 1, 10.0, corrections=[(60.0, 80.0)]).waits == pytest.approx([1.02])
    assert ask(at + 2.5, 80.0, corrections=[]).waits == pytest.approx([0.52], abs=0.01)


def test_a_surplus_of_a_lost_state_is_not_returned(server: RedisServer):
    """The new state may never have counted its place; a debt counts all the same."""
    asked, terms = Asked(server), Terms(1.0, 10.0)
    epoch = asked.at(0.0, request(1.0, terms=terms)).epoch
    asked = Asked(server)  # flushed
    corrections = [(9.0, 1.0), (1.0, 3.0)]
    reply = asked.at(1.0, Request(epoch, 0.0, 0.0, terms, False, (1.0,), corrections=corrections))
    assert reply.waits == pytest.approx([2.0])


def test_an_unknown_name_begins_with_an_empty_bucket(server: RedisServer):
    """Nobody can tell it from one whose state was lost: one immediately, then at the rate."""
    reply = Asked(server).at(5.0, request(*[1.0] * 4, terms=Terms(10, 20)))
    assert reply.waits == pytest.approx([0, 0.1, 0.2, 0.3])


def test_the_last_terms_said_count_for_all(server: RedisServer):
    """Who does not say its own learns what is in force."""
    asked, slow, fast = Asked(server), Terms(1, 1), Terms(10, 1)
    asked.at(0.0, request(1.0, terms=slow, sets_terms=True))
    assert asked.at(10.0, request(1.0, terms=fast, sets_terms=True)).terms == fast
    reply = asked.at(20.0, request(1.0, 1.0, terms=slow))
    assert reply.terms == fast
    assert reply.waits == pytest.approx([0, 0.1])


def test_state_that_was_lost_is_made_up_from_what_a_process_knows(server: RedisServer):
    """Each brings its own once: afterwards Redis knows better."""
    asked, terms = Asked(server), Terms(10, 5)
    first = asked.at(0.0, request(*[1.0] * 50, terms=terms))
    known = asked.at(1.0, request(terms=terms, epoch=first.epoch, ahead=99))
    assert known.ahead == pytest.approx(first.ahead - 1)
    asked._client.flushall()
    reply = asked.at(2.0, request(1.0, terms=terms, epoch=first.epoch, ahead=first.ahead - 2))
    assert reply.waits == pytest.approx([first.ahead - 2 - 0.4])
    later = asked.at(2.0, request(1.0, terms=terms, epoch=first.epoch, ahead=60))
    assert later.waits == pytest.approx([60 - 0.4])


def test_a_clock_that_is_set_back_holds_nobody_up(server: RedisServer):
    """Nor does it forget what was given; the state goes on from where it was."""
    asked, terms = Asked(server), Terms(10, 1)
    asked.at(5000.0, request(*[1.0] * 10, terms=terms))
    assert asked.at(10.0, request(1.0, terms=terms)).waits == pytest.approx([1.0])
    assert asked.at(10.5, request(1.0, terms=terms)).waits == pytest.approx([0.6])


def test_what_rests_expires(server: RedisServer):
    """An hour after its bucket is full, so that a burst is still there after a break."""
    asked = Asked(server)
    asked.at(0.0, request(*[1.0] * 100, terms=Terms(1, 1, 200.0)))
    assert 3600 + 99 <= asked._client.ttl("key") <= 3600 + 400
    assert asked._client.ttl("log") > 3600
