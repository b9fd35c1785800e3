"""Errors that lie, break or never end when they are asked: each question has an answer."""

from __future__ import annotations

import asyncio
import json
import unittest.mock
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ragasync import FATAL, AsyncRetry, AttemptTimeout, WorkerDied

# Internals: the verdict on each error, without a run for each.
from ragasync._retries.classify import (
    congestion,
    default_retry,
    is_loop_mismatch,
    is_programming_error,
    may_split,
    should_split,
)
from ragasync._retries.http import headers_of, http_status
from ragasync._retries.retry_after import advised_waits, retry_after_of
from ragasync.errors import text_of, walk_errors
from ragasync.foreign_errors import LONGEST_MESSAGE, MOST_LINKS, attribute, leaves_of, notes_of
from tests.support import hostile_classes


@pytest.fixture(autouse=True)
def arm() -> Iterator[None]:
    """Classes that break what looks at them do so in these tests only."""
    with hostile_classes.armed():
        yield


def decision_on(error: BaseException) -> object:
    """The decision of a policy without jitter."""
    return AsyncRetry(jitter=None).decide(error, retries=0, elapsed=0.0)


QUESTIONS: tuple[Callable[[BaseException], object], ...] = (
    *(http_status, headers_of, retry_after_of, default_retry, should_split, may_split),
    *(is_programming_error, is_loop_mismatch, congestion, decision_on),
)


def ask(error: BaseException) -> None:
    """Ask every question about an error; pytest could not show what a hostile one raises."""
    broken: list[str] = []
    for question in QUESTIONS:
        try:
            question(error)
        except BaseException as problem:
            broken.append(f"{question.__name__} raised {type.__repr__(type(problem))}")
    assert broken == []


class Panic(BaseException):
    """What PyO3 raises when Rust code panics."""


def raising(kind: type[BaseException]) -> type[Exception]:
    """Return an error class any of whose unknown attributes raises."""

    class Raising(Exception):
        def __getattr__(self, name: str) -> object:
            raise kind(name)

    return Raising


def raising_everywhere(kind: type[BaseException]) -> type[Exception]:
    """Return an error class that cannot be asked for anything at all."""

    class Everywhere(RuntimeError):
        def __getattribute__(self, name: str) -> object:
            raise kind(name)

        def __str__(self) -> str:
            raise kind

    return Everywhere


class Endless(Exception):
    """An error with an attribute of every name, each with one of every name."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return Endless()


class Recursive(Exception):
    """An error that asks itself."""

    def __getattr__(self, name: str) -> object:
        return getattr(self, name + "_")


class Liar(ConnectionError):
    """An error that claims to be of another class, and raises when asked for it."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError

    @property
    def __cause__(self) -> Any:
        raise ZeroDivisionError

    @property
    def __dict__(self) -> Any:
        raise ZeroDivisionError


class Tampered(Exception):
    """An error whose cause, notes and members are garbage."""

    __cause__ = 3  # type: ignore[assignment]
    __context__ = "x"  # type: ignore[assignment]
    __notes__ = None  # type: ignore[assignment]


class Garbled(ExceptionGroup):
    """A group that says that it holds no errors."""

    exceptions = (1, "x", None)  # type: ignore[assignment]


class Nameless(Exception, metaclass=hostile_classes.Nameless):
    """An error whose class has no hash and no name."""


class Text(str):
    """A text that cannot be cut, compared, searched or stripped."""

    def _refuse(self, *_: object) -> Any:
        raise ZeroDivisionError

    __getitem__ = __eq__ = __contains__ = __hash__ = strip = lower = endswith = _refuse  # type: ignore[assignment]
    partition = startswith = encode = split = __len__ = __str__ = _refuse  # type: ignore[assignment]


class Wordy(RuntimeError):
    """A 429 all of whose texts are such texts."""

    def __init__(self) -> None:
        super().__init__(Text("try again in 7s"))
        self.status_code, self.code, self.type = Text("429"), Text("x"), Text("insufficient_quota")
        self.headers = unittest.mock.Mock(items=lambda: [(Text("Retry-After"), Text("7"))])

    def __str__(self) -> str:
        return Text("try again in 7s")


class Looping:
    """Headers without an end."""

    def items(self) -> Iterator[tuple[str, str]]:
        while True:
            yield "x", "y"


def with_attributes(**said: object) -> Exception:
    """Return an error with these attributes."""
    error = Exception("no")
    error.__dict__.update(said)
    return error


def chain_of(length: int) -> Exception:
    """An error with this many causes, the last of them a 401."""
    error: Exception = with_attributes(status=401)
    for _ in range(length):
        outer = Exception()
        outer.__cause__ = error
        error = outer
    return error


def circle() -> Exception:
    """Return an error that is its own cause, by way of a group."""
    error, inner = Exception(), Exception()
    inner.__cause__ = error
    error.__cause__ = ExceptionGroup("x", [inner])
    return error


HOSTILE: dict[str, Callable[[], BaseException]] = {
    **{
        f"{make.__name__} {kind.__name__}": lambda make=make, kind=kind: make(kind)()  # type: ignore[misc]
        for make in (raising, raising_everywhere)
        for kind in (KeyError, RecursionError, DeprecationWarning, Panic, asyncio.CancelledError)
    },
    **{
        kind.__name__: kind  # type: ignore[dict-item]
        for kind in (Endless, Recursive, Liar, Tampered, Wordy)
    },
    "Nameless": Nameless,
    "Garbled": lambda: Garbled("x", [ValueError()]),
    "mocks": lambda: with_attributes(
        response=unittest.mock.MagicMock(),
        code=unittest.mock.Mock(),
        body=unittest.mock.MagicMock(),
    ),
    "garbage": lambda: with_attributes(
        response=3, headers=[1, 2], body=b"\xff", details=[[]], errors=(None,), code=object
    ),
    "endless headers": lambda: with_attributes(status=429, headers=Looping()),
    "odd pairs": lambda: with_attributes(
        status=429, headers={1: None, None: 2, b"retry-after": b"\xff"}
    ),
    "circle": circle,
    "chain": lambda: chain_of(100_000),
    "wide": lambda: ExceptionGroup("x", [ConnectionError() for _ in range(100_000)]),
    "page": lambda: with_attributes(status=429, message="x" * 10_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_question_about_a_hostile_error_has_an_answer(name: str) -> None:
    """Whatever it does when it is asked."""
    ask(HOSTILE[name]())


@pytest.mark.parametrize("name", HOSTILE)
def test_questions_about_a_hostile_group_and_cause_have_answers(name: str) -> None:
    """The walk visits them too; the other errors in the tree still count."""
    inner = HOSTILE[name]()
    outer = Exception()
    outer.__cause__ = inner
    group = BaseExceptionGroup("x", [with_attributes(status=401), outer])
    ask(group)
    assert default_retry(group) is FATAL


def test_a_lying_class_is_seen_through() -> None:
    """The class that raised is the one that counts, as in an except clause."""
    assert default_retry(Liar()) is True
    group = Garbled("x", [TypeError()])
    assert is_programming_error(group)


def test_a_text_that_breaks_is_still_read() -> None:
    """Only its characters count."""
    assert http_status(Wordy()) == 429
    assert retry_after_of(Wordy()) == 7.0
    assert default_retry(Wordy()) is FATAL


def test_keyboard_interrupts_pass() -> None:
    """One that arrives while an error is asked is the user's."""
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind):
            http_status(raising(kind)())


def test_mocks_state_no_time_and_no_status() -> None:
    """A MagicMock is 1 when it is asked for a number."""
    error = HOSTILE["mocks"]()
    assert (http_status(error), retry_after_of(error)) == (None, None)


def test_a_mock_of_a_response_is_a_response() -> None:
    """Tests of users are full of them."""
    response = unittest.mock.Mock(status_code=503, headers={"Retry-After": "7"})
    error = with_attributes(response=response)
    assert (http_status(error), retry_after_of(error)) == (503, 7.0)


@pytest.mark.parametrize("value", [np.int64(429), "429", b"429"])
def test_a_status_may_be_a_number_of_numpy_or_digits(value: object) -> None:
    """Rows of a DataFrame and JSON bring them."""
    status = http_status(with_attributes(status=value))
    assert (status, type(status)) == (429, int)


def test_a_number_that_is_no_status_hides_none() -> None:
    """Some services put error numbers of their own into `code`, next to a response."""
    error = with_attributes(code=1302, response=unittest.mock.Mock(status_code=429))
    assert http_status(error) == 429


@pytest.mark.parametrize(
    "response",
    [
        {"status_code": 404},
        {"status": "404"},
        {"error": {"code": 404}},
        {"ResponseMetadata": {"HTTPStatusCode": 404}},
    ],
)
def test_a_response_may_be_a_dict(response: object) -> None:
    """As botocore has it."""
    assert http_status(with_attributes(response=response)) == 404


def test_the_data_of_an_item_is_no_status() -> None:
    """A body or details may hold anything."""
    error = with_attributes(body={"status": 401, "code": 401}, details={"code": 402})
    assert (http_status(error), default_retry(error)) == (None, True)


def test_properties_that_warn_are_not_read() -> None:
    """Nobody wrote the access that they would complain about."""

    class Old(Exception):
        @property
        def code(self) -> int:
            warnings.warn("use status", DeprecationWarning, stacklevel=2)
            return 404

        @property
        def status(self) -> int:
            return 503

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert attribute(Old(), "code") is None
        assert http_status(Old()) == 503
        assert default_retry(Old()) is True
    assert caught == []


# What an error stands for


class Reply(Exception):
    """An error with a status, and perhaps headers."""

    def __init__(self, status: int, headers: object = None, message: str = "") -> None:
        super().__init__(message)
        self.status_code, self.headers = status, headers


def behind(outer: BaseException, cause: BaseException) -> BaseException:
    """Return the outer error as `raise outer from cause` leaves it."""
    outer.__cause__ = cause
    return outer


def group_of(*errors: BaseException) -> BaseException:
    """The error that a task group raises."""
    return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)


WRAPPINGS = pytest.mark.parametrize(
    "wrap",
    [
        group_of,
        lambda error: group_of(group_of(error)),
        lambda error: behind(RuntimeError("wrapped"), error),
        lambda error: behind(ConnectionError("wrapped"), error),
        lambda error: behind(RuntimeError(), behind(OSError(), error)),
        lambda error: behind(RuntimeError(), group_of(error)),
        lambda error: group_of(behind(RuntimeError(), error)),
        lambda error: behind(group_of(ConnectionError()), error),
    ],
)


@WRAPPINGS
@pytest.mark.parametrize(
    "error",
    [
        *(Reply(status) for status in (400, 401, 403, 404, 408, 413, 422, 429, 500, 503)),
        *(Reply(429, {"Retry-After": "7"}), Reply(503, {"Retry-After": "7"})),
        *(Reply(403, {"Retry-After": "7"}), Reply(400, {"X-Should-Retry": "true"})),
        *(Reply(429, None, "try again in 7s"), Reply(429, {"retry-after-ms": "7"})),
        *(TypeError(), KeyError(), ZeroDivisionError(), ConnectionError(), RecursionError()),
        *(UnicodeEncodeError("ascii", "é", 0, 1, "bad"), MemoryError(), Panic()),
        *(RuntimeError("Event loop is closed"), RuntimeError("Session is closed")),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
def test_what_stands_inside_is_what_counts(
    wrap: Callable[[BaseException], BaseException], error: BaseException
) -> None:
    """Each question has the same answer about a group or a wrapper as about what is in it."""
    wrapped = wrap(error)
    for question in QUESTIONS:
        assert question(wrapped) == question(error), question


@WRAPPINGS
def test_a_value_error_inside_splits_immediately(wrap: Callable[[Any], Any]) -> None:
    """The function refuses the data."""
    assert should_split(wrap(ValueError()))


def test_an_error_raised_while_another_is_handled_is_not_that_error() -> None:
    """Only `from` says that one stands for the other."""
    for answer in (Reply(404), Reply(401), TypeError(), RuntimeError("Event loop is closed")):
        error = ConnectionError()
        error.__context__ = answer
        assert (http_status(error), default_retry(error)) == (None, True)
        assert not is_loop_mismatch(error)


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ([Reply(503), Reply(401)], FATAL),
        ([TypeError(), Reply(401)], FATAL),
        ([Reply(503), Reply(404)], False),
        ([ConnectionError(), TypeError()], False),
        ([ConnectionError(), EOFError()], False),
        ([Reply(503), ConnectionError()], True),
        ([Panic(), ConnectionError()], False),
        ([asyncio.CancelledError(), Reply(503)], True),
    ],
)
def test_of_a_group_the_worst_decides(errors: list[BaseException], verdict: object) -> None:
    """The call as a whole would fail the same way again."""
    assert default_retry(group_of(*errors)) is verdict
    assert default_retry(group_of(*reversed(errors))) is verdict


def test_a_group_with_a_rate_limit_never_splits() -> None:
    """More calls are the last thing that helps."""
    group = group_of(Reply(400), Reply(429))
    assert not should_split(group)
    assert not may_split(group)
    assert congestion(group) == "rate_limited"


def test_the_reply_of_an_outer_error_speaks_for_its_cause() -> None:
    """A gateway that answers 503 because of a bug in it may answer otherwise."""
    error = behind(Reply(503), behind(KeyError(), Reply(401)))
    assert (http_status(error), default_retry(error), may_split(error)) == (503, True, True)


def test_the_outermost_status_is_found_first() -> None:
    """And among members the first."""
    assert http_status(group_of(behind(RuntimeError(), Reply(500)), Reply(404))) == 404
    assert http_status(group_of(Reply(404), Reply(500))) == 404


def test_an_error_of_ragasync_speaks_for_its_cause() -> None:
    """It says itself what happened."""
    error = behind(AttemptTimeout(), KeyError())
    assert default_retry(error) is True
    assert default_retry(behind(WorkerDied("killed"), Reply(404))) is True


def test_json_that_cannot_be_read_behind_an_error_is_a_broken_reply() -> None:
    """It says nothing against the data that was sent; a function's own does."""
    broken = json.JSONDecodeError("x", "", 0)
    assert should_split(broken)
    assert not should_split(behind(RuntimeError("a broken reply"), broken))
    assert default_retry(behind(RuntimeError("a broken reply"), broken)) is True


def test_an_end_of_file_behind_a_connection_error_is_a_lost_connection() -> None:
    """So clients find that the other side has gone."""
    assert default_retry(behind(ConnectionError(), EOFError())) is True
    assert default_retry(behind(RuntimeError(), EOFError())) is False
    assert default_retry(behind(RuntimeError(), asyncio.IncompleteReadError(b"", 9))) is True


def test_a_timeout_of_asyncio_is_retried() -> None:
    """It is raised from the cancellation that it stands for."""
    assert default_retry(behind(TimeoutError(), asyncio.CancelledError())) is True


@pytest.mark.parametrize(
    ("errors", "wait"),
    [
        ([Reply(429, {"Retry-After": "3"}), Reply(429, {"Retry-After": "9"})], 9.0),
        ([Reply(429, {"Retry-After": "3"}), Reply(429, None, "try again in 9s")], 3.0),
        ([Reply(429, None, "try again in 3s"), Reply(503, None, "retry in 9s")], 9.0),
        ([Reply(404, None, "try again in 3s"), Reply(429)], None),
    ],
)
def test_of_several_waits_the_longest_counts(
    errors: list[BaseException], wait: float | None
) -> None:
    """Of those that are equally explicit."""
    assert retry_after_of(group_of(*errors)) == wait


def test_a_wrapper_may_repeat_the_words_of_what_it_wraps() -> None:
    """It has no status of its own, so it speaks of that one's."""
    wrapper = RuntimeError("embedding failed: try again in 20s")
    assert retry_after_of(behind(wrapper, Reply(429))) == 20.0
    assert retry_after_of(RuntimeError("embedding failed: try again in 20s")) is None


# Retry-After


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Rate limit reached. Please try again in 20s.", 20.0),
        ("Please retry in 53.2s.", 53.2),
        ("Please try again in 1m30s", 90.0),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 7h12m0s.", 25920.0),
        ("Please try again in 250ms. Visit us", 0.25),
        ("TRY AGAIN AFTER 2 MINUTES", 120.0),
        ("Please retry after 26 seconds.", 26.0),
        ("Please retry your request after 1 minute and 5 seconds", 65.0),
        ("Please wait 20 seconds before the next call", 20.0),
        ("retry in 1 hour", 3600.0),
        ("try again in 5s; no, try again in 9s", 9.0),
        ("Rate limit reached", None),
        ("the upstream timed out after 30 seconds", None),
        ("try again in a minute", None),
        ("try again in 5 tokens", None),
        ("try again in 20", None),
        ("try again in -5s", None),
        ("try again in 99999999999999999999s", None),
        ("x" * 5000 + " try again in 5s", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_words_are_read_on_a_429_and_a_503(status: int, words: str, seconds: float | None) -> None:
    """In the first few kilobytes, and only with a unit."""
    assert retry_after_of(Reply(status, None, words)) == seconds


@pytest.mark.parametrize("status", [400, 403, 404, 500, 502, 504])
def test_words_of_other_errors_are_not_read(status: int) -> None:
    """They may be the item's."""
    assert retry_after_of(Reply(status, None, "try again in 20s")) is None


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        *(("1s", 1.0), ("6m0s", 360.0), ("1m30s", 90.0), ("250ms", 0.25), ("2m59.56s", 179.56)),
        *(("7", 7.0), ("0", 0.0), (str(int(NOW) + 60), 60.0), (f"{int(NOW) + 60}000", 60.0)),
        *((str(int(NOW) - 60), None), ("-1", None), ("nan", None), ("inf", None), ("1e999", None)),
        *(("soon", None), ("", None), ("1_0", None), ("٣s", None), ("9" * 5000, None)),
    ],
)
def test_the_reset_of_a_limit_that_is_used_up_counts_on_a_429(
    reset: str, seconds: float | None
) -> None:
    """As lengths, as seconds and as instants."""
    headers = {"X-RateLimit-Reset-Tokens": reset, "X-RateLimit-Remaining-Tokens": "0"}
    found = retry_after_of(Reply(429, headers), NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))
    for status in (200, 403, 500, 503):
        assert retry_after_of(Reply(status, headers), NOW) is None


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "1"}, None),
        ({}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
        ({"x-ratelimit-remaining-requests": "0"}, 90.0),
        ({"x-ratelimit-remaining-requests": "0", "retry-after": "2"}, 2.0),
        ({"x-ratelimit-remaining-requests": "0", "retry-after": "soon"}, 90.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "2m",
            },
            120.0,
        ),
    ],
)
def test_a_reset_counts_only_for_its_limit_and_after_a_retry_after(
    more: dict[str, str], seconds: float | None
) -> None:
    """The reset of a limit with something left is no time to wait."""
    headers = {"x-ratelimit-reset-requests": "1m30s", **more}
    assert retry_after_of(Reply(429, headers)) == seconds


def test_a_reset_goes_before_words() -> None:
    """A field says more than a text."""
    headers = {"x-ratelimit-reset": "30", "x-ratelimit-remaining": "0"}
    assert retry_after_of(Reply(429, headers, "try again in 90s"), NOW) == 30.0


@pytest.mark.parametrize("status", [200, 400, 403, 413, 429, 500, 503])
@pytest.mark.parametrize("header", ["Retry-After", "retry-after-ms", "RETRY-AFTER-MS"])
def test_a_retry_after_counts_with_any_status(status: int, header: str) -> None:
    """A service that is closed says so in its own way."""
    assert retry_after_of(Reply(status, {header: "7000"})) == (7000 if len(header) == 11 else 7)


def test_a_403_with_a_retry_after_is_retried_and_other_refusals_are_not() -> None:
    """A time to come back says that the key will do then."""
    headers = {"Retry-After": "7"}
    assert default_retry(Reply(403, headers)) is True
    assert default_retry(Reply(403, {"Retry-After": "soon"})) is False
    for status in (400, 404, 405, 410, 413, 422):
        assert default_retry(Reply(status, headers)) is False
    assert default_retry(Reply(401, headers)) is FATAL


def test_an_epoch_in_a_retry_after_is_a_number_of_seconds() -> None:
    """As the RFC says; it is then longer than any limit."""
    assert retry_after_of(Reply(429, {"Retry-After": "1795929333"})) == 1795929333.0


@pytest.mark.parametrize(
    "hostile",
    [
        "retry in " + "1" * 1_000_000,
        "retry in " * 100_000,
        "retry " + " " * 1_000_000,
        "retry in " + "1s" * 500_000 + "!",
        "retry in " + "1s and " * 150_000,
        "retry in " + "1.1" * 300_000,
        "again again " * 80_000,
        "retry your " + "x" * 1_000_000,
    ],
    ids=lambda hostile: hostile[:16],
)
def test_words_are_searched_in_linear_time(hostile: str) -> None:
    """A megabyte would take hours in quadratic time; the test's own time limit fails it."""
    list(advised_waits(hostile))


# The walk


def test_texts_are_cut_and_notes_are_a_tuple_whatever_they_were() -> None:
    """A page is as good as its beginning."""
    assert len(text_of(Exception("x" * 10**6))) == LONGEST_MESSAGE
    assert type(text_of(Wordy())) is str
    error = Exception()
    error.__notes__ = ["a", 3, "x" * 10**6]
    assert [len(note) for note in notes_of(error)] == [1, 1, LONGEST_MESSAGE]
    assert notes_of(Tampered()) == ()


def test_the_walk_ends_and_meets_each_error_once() -> None:
    """However large the tree is."""
    assert len(list(walk_errors(circle()))) == 3
    assert len(list(walk_errors(chain_of(10_000)))) == MOST_LINKS
    assert len(leaves_of(group_of(*(OSError() for _ in range(9_999))))) <= MOST_LINKS
