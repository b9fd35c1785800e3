from __future__ import annotations

import asyncio
import decimal
import http
import io
import json
import ssl
import time
import urllib.error
import warnings
from collections.abc import Iterator, Mapping
from email.message import Message

import pytest
from aiohttp import ClientConnectionError, ClientResponseError, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ragasync import FATAL

# Internals: the verdict on each error, without a run for each.
from ragasync._retries.classify import (
    default_retry,
    is_loop_mismatch,
    is_programming_error,
    may_split,
    should_split,
)
from ragasync._retries.http import http_status
from ragasync._retries.retry_after import retry_after_of
from ragasync.errors import AttemptTimeout, MissingExtra, ResultCountError, RunAsyncError
from tests.support.requirements import needs

NOON = 784_123_200.0  # Sun, 06 Nov 1994 12:00:00 GMT


class Reply:
    """A client's response object; false when it failed, as that of requests is."""

    def __init__(self, status: int, headers: object = None) -> None:
        self.status_code = status
        self.headers = headers

    def __bool__(self) -> bool:
        return False


class ReplyError(Exception):
    """An error with the response it came from, as httpx and requests raise it."""

    def __init__(
        self, status: int, headers: object = None, message: str = "", **said: object
    ) -> None:
        super().__init__(message)
        self.response = Reply(status, headers)
        self.__dict__.update(said)


class WithAttributes(Exception):
    """An error with whatever attributes a client gives it."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        self.__dict__.update(attributes)


class Grumpy(Exception):
    """An error whose attributes and text cannot be read."""

    @property
    def status_code(self) -> int:
        """Raise, as a property of a request that was never sent does."""
        raise RuntimeError("no response yet")

    def __getattr__(self, name: str) -> object:
        raise KeyError(name)

    def __str__(self) -> str:
        raise ValueError("no words")


def raised_from(error: Exception, cause: BaseException) -> Exception:
    """Return the error as it is after `raise error from cause`."""
    error.__cause__ = cause
    return error


WHOLE_MESSAGE = (
    "Task <Task pending name='Task-1' coro=<f() running at x.py:1> cb=[run.<locals>.done()]> "
    "got Future <Future pending> attached to a different loop"
)


def aiohttp_error(status: int, headers: Mapping[str, str] | None = None) -> ClientResponseError:
    """Return the error that aiohttp raises for a bad status."""
    url = URL("http://localhost/")
    info = RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
    return ClientResponseError(info, (), status=status, headers=CIMultiDict(headers or {}))


def urllib_error(status: int, headers: Mapping[str, str] | None = None) -> urllib.error.HTTPError:
    """Return the error that urllib raises for a bad status."""
    message = Message()
    for name, value in (headers or {}).items():
        message[name] = value
    return urllib.error.HTTPError("http://localhost/", status, "no", message, io.BytesIO())


@pytest.mark.parametrize("make", [aiohttp_error, urllib_error, ReplyError])
def test_the_status_of_real_clients_errors_is_found(make: type[ReplyError]) -> None:
    """Aiohttp, urllib and clients with a response object say the status in different places."""
    assert http_status(make(503)) == 503


@pytest.mark.parametrize("name", ["status_code", "http_status", "status", "code"])
def test_a_status_is_found_under_each_of_its_names(name: str) -> None:
    """The status may be an attribute of the error itself."""
    assert http_status(WithAttributes(**{name: 418})) == 418


def test_a_status_that_is_an_enum_comes_back_as_a_plain_int() -> None:
    """HTTPStatus is an int with a name; the answer is the int alone."""
    assert type(http_status(WithAttributes(code=http.HTTPStatus.NOT_FOUND))) is int


@pytest.mark.parametrize(
    "value", ["four", "4290", "٤٢٩", "", True, None, 429.0, 0, 99, 600, 1006, -1, lambda: 429]
)
def test_what_is_no_http_status_is_none(value: object) -> None:
    """Only a whole number from 100 to 599 is a status."""
    assert http_status(WithAttributes(code=value)) is None


@pytest.mark.parametrize("status", ["RESOURCE_EXHAUSTED", True])
def test_what_is_no_number_leaves_the_status_to_the_next_attribute(status: object) -> None:
    """Some SDKs have a status in words, or a flag, beside a code in numbers."""
    assert http_status(WithAttributes(status=status, code=429)) == 429


def test_attributes_that_raise_are_no_status() -> None:
    """An error that cannot be read is not a new error."""
    assert http_status(Grumpy()) is None


@pytest.mark.parametrize(("status", "verdict"), [(0, True), (403, False), (429, True)])
def test_deprecated_attributes_are_left_alone(status: int, verdict: bool) -> None:
    """The `code` of an aiohttp error warns when it is read, even where its status is 0."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert default_retry(aiohttp_error(status)) is verdict
    assert caught == []


@pytest.mark.parametrize("make", [aiohttp_error, urllib_error, lambda s, h: ReplyError(s, h)])
def test_retry_after_is_found_in_real_clients_headers(make: type[ReplyError]) -> None:
    """A CIMultiDict, an email Message and a plain dict are read alike."""
    assert retry_after_of(make(429, {"Retry-After": "7"})) == 7.0


def test_retry_after_is_found_in_httpx_headers() -> None:
    """The Headers of httpx are read through the error's response."""
    needs("httpx")
    import httpx

    response = httpx.Response(429, headers={"Retry-After": "7"})
    error = httpx.HTTPStatusError("no", request=httpx.Request("GET", "http://x"), response=response)
    assert (http_status(error), retry_after_of(error)) == (429, 7.0)


def test_retry_after_and_status_are_found_behind_a_response_that_is_false() -> None:
    """A failed response of requests is false, and has its headers all the same."""
    needs("requests")
    import requests

    response = requests.Response()
    response.status_code = 503
    response.headers["Retry-After"] = "7"
    error = requests.HTTPError("no", response=response)
    assert (http_status(error), retry_after_of(error)) == (503, 7.0)


@pytest.mark.parametrize("name", ["retry-after", "Retry-After", "RETRY-AFTER"])
def test_header_names_have_no_case(name: str) -> None:
    """A plain dict is searched in any spelling."""
    assert retry_after_of(WithAttributes(headers={name: " 1.5 "})) == 1.5


def test_milliseconds_go_before_seconds() -> None:
    """The finer of two answers counts."""
    headers = {"Retry-After": "2", "Retry-After-Ms": "1250"}
    assert retry_after_of(ReplyError(429, headers)) == 1.25


def test_seconds_count_where_the_milliseconds_are_garbage() -> None:
    """One unreadable header does not hide the other."""
    headers = {"Retry-After": "2", "Retry-After-Ms": "soon"}
    assert retry_after_of(ReplyError(429, headers)) == 2.0


@pytest.fixture
def restored_zone() -> Iterator[None]:
    """Forget the time zone that a test has set, once its environment is restored."""
    yield
    time.tzset()


@pytest.mark.usefixtures("restored_zone")
@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 1994 12:00:30 GMT",
        "Sunday, 06-Nov-94 12:00:30 GMT",
        "Sun Nov  6 12:00:30 1994",
        "Sun, 06 Nov 1994 12:00:30 -0000",
        "Sun, 06 Nov 1994 13:00:30 +0100",
    ],
)
def test_an_http_date_is_measured_against_the_wall_clock(
    date: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three forms of RFC 9110 are in UTC, wherever this machine stands."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert retry_after_of(ReplyError(503, {"Retry-After": date}), now=NOON) == 30.0


def test_a_date_in_the_past_counts_as_absent() -> None:
    """The instant has come already, so nothing is said about the time to wait."""
    error = ReplyError(503, {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"})
    assert retry_after_of(error) is None


@pytest.mark.parametrize(
    "value",
    [
        *("", "soon", "-1", "nan", "inf", "1e999", "12 Nov", "1, 2"),
        *("1 Jan 99999 00:00:00 GMT", "99999999999999999999 Jan 2020 00:00:00 GMT"),
    ],
)
def test_garbage_asks_for_no_wait(value: str) -> None:
    """What is neither a number to wait for nor a date is as good as absent."""
    assert retry_after_of(ReplyError(429, {"Retry-After": value})) is None


@pytest.mark.parametrize("value", ["0", "86400", "1e9"])
def test_very_long_waits_are_honoured(value: str) -> None:
    """How long is too long is the caller's to say."""
    assert retry_after_of(ReplyError(429, {"Retry-After": value})) == float(value)


@pytest.mark.parametrize("headers", [None, 3, [("Retry-After", "7")], {"Date": "today"}])
def test_headers_that_cannot_be_read_ask_for_no_wait(headers: object) -> None:
    """Only a mapping with the header says anything."""
    assert retry_after_of(ReplyError(429, headers)) is None


def test_a_response_answers_where_the_errors_own_headers_do_not() -> None:
    """The error may have headers of another kind than the response."""
    error = ReplyError(429, {"Retry-After": "7"})
    error.__dict__["headers"] = {"X-Trace": "1"}
    assert retry_after_of(error) == 7.0


def test_the_errors_own_headers_go_before_its_responses() -> None:
    """An SDK that sets them on the error means them."""
    error = ReplyError(429, {"Retry-After": "7"})
    error.__dict__["headers"] = {"Retry-After": "3"}
    assert retry_after_of(error) == 3.0


@pytest.mark.parametrize(
    "error",
    [
        *(TypeError(), AttributeError(), NameError(), KeyError(), IndexError(), AssertionError()),
        *(ImportError(), NotImplementedError(), MemoryError(), RecursionError()),
        *(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), FileNotFoundError()),
        *(ZeroDivisionError(), OverflowError(), FloatingPointError(), SyntaxError(), EOFError()),
        *(IndentationError(), decimal.InvalidOperation()),
        *(
            RuntimeError("Session is closed"),
            RuntimeError("cannot schedule new futures after shutdown"),
        ),
        RuntimeError("Cannot send a request, as the client has been closed."),
        *(PermissionError(), NotADirectoryError(), IsADirectoryError()),
        MissingExtra("x", "y", "z"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_must_fail_the_same_way_is_not_tried_again(error: Exception) -> None:
    """Neither the program nor the data changes by waiting."""
    assert default_retry(error) is False


@pytest.mark.parametrize(
    "error",
    [
        *(Exception(), RuntimeError("x"), ConnectionResetError(), TimeoutError(), OSError()),
        *(json.JSONDecodeError("x", "", 0), AttemptTimeout(), ResultCountError()),
        *(ClientConnectionError(), ssl.SSLError(), asyncio.IncompleteReadError(b"", 1)),
        RuntimeError('the page says "Session is closed"'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_tried_again(error: Exception) -> None:
    """What is not known to be hopeless may pass."""
    assert default_retry(error) is True


def test_an_error_that_cannot_be_read_is_tried_again() -> None:
    """Attributes and text that raise say nothing against it."""
    assert default_retry(Grumpy()) is True


def test_a_status_that_is_made_up_when_asked_for_is_found() -> None:
    """An error may pass on the attributes of something else."""

    class Proxy(Exception):
        """An error whose attributes are not its own."""

        def __getattr__(self, name: str) -> int:
            if name == "status_code":
                return 400
            raise AttributeError(name)

    assert default_retry(Proxy()) is False


def test_a_runtime_error_without_words_is_tried_again() -> None:
    """Its text cannot be searched for a mismatch of loops."""

    class Wordless(Grumpy, RuntimeError):
        """A RuntimeError that cannot be turned into text."""

    assert default_retry(Wordless()) is True


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, False) for status in (400, 404, 405, 410, 413, 418, 422, 451, 403)),
        *((status, True) for status in (408, 409, 425, 429, 500, 502, 503, 504, 599, 304)),
        *((status, FATAL) for status in (401, 402)),
    ],
)
@pytest.mark.parametrize("make", [aiohttp_error, urllib_error, ReplyError])
def test_the_status_decides(make: type[ReplyError], status: int, verdict: object) -> None:
    """4xx is final but for those that speak of time; a bad key or bill ends the job."""
    assert default_retry(make(status)) is verdict


@pytest.mark.parametrize(
    "said",
    [
        {"code": "insufficient_quota"},
        {"type": "insufficient_quota"},
        {"body": {"error": {"code": "insufficient_quota"}}},
        {"body": {"error": {"type": "insufficient_quota"}}},
        {"body": {"code": "insufficient_quota"}},
        {"body": {"type": "insufficient_quota"}},
        {"body": [{"error": {"errors": [{"reason": "dailyLimitExceeded"}]}}]},
        {"details": [{"reason": "BILLING_DISABLED"}]},
    ],
)
@pytest.mark.parametrize("status", [403, 429])
def test_a_used_up_quota_is_fatal(status: int, said: dict[str, str]) -> None:
    """A rate limit passes, an empty account does not; only a field tells them apart."""
    assert default_retry(ReplyError(status, **said)) is FATAL  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        {"message": "Error code: 429 - {'type': 'insufficient_quota'}"},
        {"message": "insufficient_quota"},
        {"code": "the item says insufficient_quota"},
        {"body": '{"error": {"code": "insufficient_quota"}}'},
        {"body": {"input": "insufficient_quota", "error": {"message": "insufficient_quota"}}},
        {"code": "rate_limit_exceeded", "type": "requests"},
    ],
)
def test_the_word_elsewhere_than_in_its_field_stops_nothing(said: dict[str, str]) -> None:
    """A 429 may quote an item, and the item may hold any word."""
    assert default_retry(ReplyError(429, **said)) is True  # type: ignore[arg-type]


def test_a_used_up_quota_without_a_status_is_fatal() -> None:
    """An error in the middle of a stream has fields and no status."""
    assert default_retry(WithAttributes(code="insufficient_quota")) is FATAL


def test_the_code_of_a_server_error_is_not_trusted() -> None:
    """A 500 may pass, whatever it says."""
    assert default_retry(ReplyError(500, code="insufficient_quota")) is True


def test_a_refusal_without_words_is_judged_by_its_status() -> None:
    """An error that cannot be turned into text is not a new error."""
    error = Grumpy()
    error.__dict__["status"] = 429
    assert default_retry(error) is True


@pytest.mark.parametrize(
    ("status", "asked", "verdict"),
    [
        (400, "true", True),
        (503, "false", False),
        (429, "false", False),
        (503, "maybe", True),
        (401, "true", FATAL),
    ],
)
def test_x_should_retry_overrules_a_status_that_is_not_fatal(
    status: int, asked: str, verdict: object
) -> None:
    """A service that says whether to retry knows better than its status."""
    assert default_retry(ReplyError(status, {"X-Should-Retry": asked})) is verdict


def test_a_used_up_quota_stays_fatal_when_the_service_says_not_to_retry() -> None:
    """`x-should-retry: false` speaks of one call, the empty account of them all."""
    error = ReplyError(429, {"x-should-retry": "false"}, code="insufficient_quota")
    assert default_retry(error) is FATAL


@pytest.mark.real_time
def test_using_a_lock_of_another_loop_is_a_mismatch() -> None:
    """The words that asyncio has for a lock that waits on two loops are known."""
    lock = asyncio.Lock()

    async def contend() -> None:
        async with lock:
            await asyncio.wait_for(lock.acquire(), 0.001)

    with pytest.raises(TimeoutError):
        asyncio.run(contend())
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(contend())
    assert is_loop_mismatch(caught.value)


@pytest.mark.real_time
def test_awaiting_a_future_of_another_loop_is_a_mismatch() -> None:
    """The words that asyncio has for a foreign future are known."""
    other = asyncio.new_event_loop()

    async def wait_for_it() -> None:
        await other.create_future()

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(wait_for_it())
    other.close()
    assert is_loop_mismatch(caught.value)


@pytest.mark.real_time
def test_using_a_closed_loop_is_a_mismatch() -> None:
    """The words that asyncio has for a closed loop are known."""
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as caught:
        loop.call_soon(print)
    assert is_loop_mismatch(caught.value)


def test_a_mismatch_is_seen_through_the_clients_wrapping() -> None:
    """SDKs raise a connection error of their own from asyncio's RuntimeError."""
    inner = raised_from(ConnectionError(), RuntimeError("Event loop is closed"))
    error = raised_from(Exception("Connection error."), inner)
    assert is_loop_mismatch(error)
    assert default_retry(error) is FATAL


def test_our_own_error_about_loops_is_a_mismatch() -> None:
    """A bridge called inside the processed function has named the trouble already."""
    assert default_retry(RunAsyncError("whatever it says")) is FATAL


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError("the loop is fine"), ValueError("Event loop is closed")),
        *(ConnectionError("Event loop is closed"), RuntimeError("different loop")),
        ValueError('expected JSON, got "... attached to a different loop"'),
        RuntimeError('expected JSON, got "Event loop is closed"'),
        RuntimeError("Event loop is closed\n"),
        RuntimeError(f'500: "{WHOLE_MESSAGE}"'),
        RuntimeError(f"{WHOLE_MESSAGE}, said the service"),
        RuntimeError("Task 7 failed: its object is attached to a different loop"),
        RuntimeError("Task 7: got Future plans attached to a different loop"),
        RuntimeError(
            "Task failed: the model wrote 'x got Future y', which is attached to a different loop"
        ),
        RuntimeError("<html> is bound to a different event loop"),
        RuntimeError("the lock is bound to a different event loop"),
        RuntimeError("<p>a lock</p> is bound to a different event loop"),
        RuntimeError("<p><b> is bound to a different event loop"),
        RuntimeError("Timeout should be used inside a task"),
        ValueError("the future belongs to a different loop"),
        RuntimeError(
            "The future belongs to a different loop than the one specified as the loop argument"
        ),
    ],
    ids=repr,
)
def test_other_errors_are_no_mismatch(error: Exception) -> None:
    """Only asyncio's own messages are, as a whole: an item may say anything."""
    assert not is_loop_mismatch(error)
    assert default_retry(error) is True


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(WHOLE_MESSAGE),
        RuntimeError("Event loop is closed"),
        RuntimeError("Timeout context manager should be used inside a task"),
        RuntimeError(
            "<asyncio.locks.Semaphore object at 0x7f1c8d4e2f10 [locked, waiters:1]> "
            "is bound to a different event loop"
        ),
        RuntimeError("<Queue at 0x7f12 maxsize=0> is bound to a different event loop"),
        RuntimeError("<test.<locals>.MyLock object at 0x7F> is bound to a different event loop"),
        RuntimeError(WHOLE_MESSAGE.replace("f()", "f(" + "x" * 100_000 + ")")),
    ],
    ids=lambda error: str(error)[:40],
)
@pytest.mark.parametrize("wrap", ["alone", "cause", "member"])
def test_asyncios_own_messages_are_mismatches_wherever_they_are(
    error: Exception, wrap: str
) -> None:
    """A client wraps them, and a task group groups them."""
    if wrap == "cause":
        error = raised_from(Exception("Connection error."), error)
    elif wrap == "member":
        error = ExceptionGroup("unhandled errors in a TaskGroup", [KeyError(), error])
    assert default_retry(error) is FATAL
    assert not may_split(error)


@pytest.mark.real_time
def test_passing_a_future_of_another_loop_is_a_mismatch() -> None:
    """The one ValueError that asyncio has for it is known."""
    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    with pytest.raises(ValueError, match="different loop") as caught:
        asyncio.gather(one.create_future(), other.create_future())
    one.close()
    other.close()
    assert is_loop_mismatch(caught.value)


def test_causes_that_form_a_circle_end() -> None:
    """A chain of causes made by hand may lead back to where it began."""
    error = Exception()
    assert not is_loop_mismatch(raised_from(error, raised_from(Exception(), error)))


@pytest.mark.parametrize(
    "error",
    [
        *(TypeError(), AttributeError(), NameError(), AssertionError(), ImportError()),
        *(NotImplementedError(), RecursionError(), UnboundLocalError(), ModuleNotFoundError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_the_program_are_known_and_split_nothing(error: Exception) -> None:
    """Whatever the items, the code is wrong."""
    assert is_programming_error(error)
    assert not should_split(error)
    assert not may_split(error)


@pytest.mark.parametrize(
    "error",
    [KeyError(), UnicodeEncodeError("ascii", "é", 0, 1, "bad"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_errors_about_the_data_may_split(error: Exception) -> None:
    """Never tried again, but halving the batch finds the item that caused them."""
    assert not is_programming_error(error)
    assert may_split(error)


@pytest.mark.parametrize(
    "error",
    [
        *(ReplyError(400), urllib_error(413), aiohttp_error(422)),
        *(ValueError(), ResultCountError(), json.JSONDecodeError("x", "", 0)),
    ],
    ids=repr,
)
def test_refused_data_splits_at_once(error: Exception) -> None:
    """Trying the same batch again would be refused again."""
    assert should_split(error)
    assert may_split(error)


@pytest.mark.parametrize(
    "error",
    [ReplyError(500), aiohttp_error(503), TimeoutError(), ConnectionError(), AttemptTimeout()],
    ids=repr,
)
def test_what_may_pass_splits_only_after_its_retries(error: Exception) -> None:
    """The whole batch deserves its retries first."""
    assert not should_split(error)
    assert may_split(error)


@pytest.mark.parametrize(
    "error",
    [
        *(ReplyError(401), ReplyError(402), urllib_error(403), aiohttp_error(429)),
        *(ReplyError(429, code="insufficient_quota"), RuntimeError("Event loop is closed")),
    ],
    ids=repr,
)
def test_refusals_of_the_caller_never_split(error: Exception) -> None:
    """Smaller batches do not mend a key, a quota, a rate or a loop."""
    assert not should_split(error)
    assert not may_split(error)


class RefusedValue(ReplyError, ValueError):
    """An SDK's error that is a ValueError too."""


@pytest.mark.parametrize(
    ("status", "at_once"), [(400, True), (401, False), (429, False), (503, False)]
)
def test_a_status_counts_more_than_the_type(status: int, at_once: bool) -> None:
    """A ValueError with a status is what its status says."""
    assert should_split(RefusedValue(status)) is at_once


def test_a_certificate_error_is_about_the_connection_although_a_value_error() -> None:
    """Python derives it from ValueError, but no smaller batch would verify it."""
    error = ssl.SSLCertVerificationError()
    assert isinstance(error, ValueError)
    assert not should_split(error)


def test_fatal_says_its_name() -> None:
    """It is shown in results and messages."""
    assert repr(FATAL) == "FATAL"
