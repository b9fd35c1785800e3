"""An error on a worker process means here what it meant there, whatever its class is like."""

import asyncio
import copyreg
import dataclasses
import http.client
import json
import multiprocessing
import pickle
import sqlite3
import threading
import urllib.error
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, AsyncRetry, CallAborted, RemoteError

# Internals: each case without a worker process of its own.
from ragasync._calls import remote_errors
from ragasync._calls.groups import ItemGroup, RemoteFunction, run_group
from ragasync._calls.remote_errors import aborted_call
from ragasync._retries.classify import congestion, default_retry, may_split, should_split
from ragasync._retries.http import headers_of, http_status
from ragasync._retries.retry_after import retry_after_of
from tests.support.hostile_classes import Hidden, armed
from tests.support.pickling_executor import ByPost
from tests.support.requirements import needs

needs("cloudpickle")

WidgetFactory = Callable[[], Exception]


# ---- what strangers raise


class NeedsKeywords(Exception):
    """As the SDKs of most services: with keywords that unpickling does not give."""

    def __init__(self, message: str, *, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status_code = status
        self.headers = headers or {}


class SaysItTwice(Exception):
    """Whose constructor adds to its message, so that unpickling adds again."""

    def __init__(self, message: str) -> None:
        super().__init__(f"refused: {message}")


class TellsAnother(Exception):
    """Whose own way of pickling gives another error than it is."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code

    def __reduce__(self) -> Any:
        return TellsAnother, ("all is well", 200)


class IsNoErrorAfterwards(ValueError):
    """What is loaded is a number."""

    def __reduce__(self) -> Any:
        return int, ("7",)


class LeavesWhenLoaded(ConnectionError):
    """Loading it would end the thread that does it."""

    def __setstate__(self, state: Any) -> None:
        raise SystemExit(3)


class LeavesWhenPickled(ConnectionError):
    """Pickling it would."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class HoldsALock(TimeoutError):
    """With something that never leaves its process, and a constructor of its own."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.lock = threading.Lock()


class HasSlots(Exception):
    """Which pickling leaves out."""

    __slots__ = ("item", "status_code")

    def __init__(self, status: int) -> None:
        super().__init__("slotted")
        self.status_code, self.item = status, "x"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """An error that nothing can be set on."""

    status_code: int


class DeniesItself(ConnectionError):
    """An error that is false, and equal to everything."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        raise TypeError("no")


class LiesAboutItsClass(ConnectionError):
    """An error that says that it is a number, with a number that says that it is an error."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.number = SaysItIsAnError()

    @property
    def __class__(self) -> Any:
        return int


class SaysItIsAnError:
    """No error at all."""

    @property
    def __class__(self) -> Any:
        return ValueError


class OfAHiddenKind(ConnectionError, metaclass=Hidden):
    """An error whose class raises when it is looked at."""


class CannotBeShown(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise KeyError("no text")


class AnswersNothing(Exception):
    """Whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Several(ExceptionGroup[Exception]):
    """A group with a constructor of its own."""

    def __new__(cls, errors: list[Exception], status: int) -> Self:
        """Make a group of some errors."""
        group = super().__new__(cls, "several", errors)
        group.status_code = status
        return group

    status_code: int


class Reply:
    """The reply of a client, with an open connection."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        self.headers = headers
        self.connection = threading.Lock()


def local_class(base: type[Exception]) -> Exception:
    """Return an error whose very class cannot be pickled."""

    class Local(base):  # type: ignore[misc,valid-type]
        lock = threading.Lock()

    return Local("local")


def with_reply(error: Exception, status: int, headers: dict[str, str]) -> Exception:
    """Return an error that holds a reply, as those of requests do."""
    error.response = Reply(status, headers)  # type: ignore[attr-defined]
    return error


def with_cause(error: Exception, cause: BaseException) -> Exception:
    """Return an error raised from another."""
    BaseException.__setattr__(error, "__cause__", cause)
    return error


def with_attributes(error: Exception, **attributes: Any) -> Exception:
    """Return an error with some attributes."""
    error.__dict__.update(attributes)
    return error


def circle() -> Exception:
    """Return an error that is its own cause's cause."""
    first, second = NeedsKeywords("first", status=401), HoldsALock(1, 2)
    first.__cause__, second.__cause__ = second, first
    return first


def in_itself() -> Exception:
    """Return an error that holds itself, in an object that holds itself many times."""
    error = NeedsKeywords("me", status=500)
    around = Reply(500, {})
    around.__dict__.update({f"again{number}": around for number in range(100)})
    return with_attributes(error, me=error, around=around)


def long_chain(length: int) -> Exception:
    """Return an error at the end of a long chain of causes."""
    error: Exception = NeedsKeywords("root", status=500)
    for number in range(length):
        error = with_cause(NeedsKeywords(str(number), status=500), error)
    return error


def deep_group(depth: int) -> Exception:
    """Return a group in a group in a group."""
    error: Exception = ValueError("leaf")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


def http_error() -> Exception:
    """Return urllib's error, which is also the reply, with an open file."""
    headers = http.client.HTTPMessage()
    headers["Retry-After"] = "5"
    return urllib.error.HTTPError("http://x.test", 503, "away", headers, None)


STRANGERS: dict[str, WidgetFactory] = {
    "401 that needs keywords": lambda: NeedsKeywords("bad key", status=401),
    "429 with Retry-After": lambda: NeedsKeywords("slow", status=429, headers={"Retry-After": "7"}),
    "400 of a batch": lambda: NeedsKeywords("bad text", status=400),
    "503 until a date": lambda: NeedsKeywords(
        "closed",
        status=503,
        headers={"Retry-After": format_datetime(datetime(2100, 1, 1, tzinfo=UTC))},
    ),
    "says it twice": lambda: SaysItTwice("no"),
    "tells another": lambda: TellsAnother("refused", 401),
    "is no error afterwards": lambda: IsNoErrorAfterwards("seven"),
    "leaves when loaded": lambda: LeavesWhenLoaded("away"),
    "leaves when pickled": lambda: LeavesWhenPickled("away"),
    "holds a lock": lambda: HoldsALock(1, 2),
    "has slots": lambda: HasSlots(401),
    "frozen": lambda: Frozen(403),
    "frozen with a cause": lambda: with_cause(Frozen(403), ValueError("why")),
    "denies itself": lambda: DeniesItself("no"),
    "denies itself and its cause": lambda: with_cause(DeniesItself("no"), DeniesItself("why")),
    "lies about its class": lambda: LiesAboutItsClass("no"),
    "cannot be shown": lambda: CannotBeShown("x"),
    "answers nothing": lambda: AnswersNothing("x"),
    "class that cannot travel": lambda: local_class(ConnectionError),
    "programmer's class that cannot travel": lambda: local_class(TypeError),
    "data's class that cannot travel": lambda: local_class(ValueError),
    "401 of a class that cannot travel": lambda: with_attributes(
        local_class(Exception), status_code=401
    ),
    "quota of a class that cannot travel": lambda: with_attributes(
        local_class(Exception), status_code=429, code="insufficient_quota"
    ),
    "quota in the body": lambda: with_attributes(
        local_class(Exception), status_code=429, body={"error": {"code": "insufficient_quota"}}
    ),
    "reply that cannot travel": lambda: with_reply(OSError("no"), 429, {"retry-after": "9"}),
    "reply and class that cannot travel": lambda: with_reply(
        local_class(OSError), 503, {"retry-after-ms": "1500", "x-should-retry": "false"}
    ),
    "401 behind another": lambda: with_cause(
        RuntimeError("call failed"), NeedsKeywords("bad key", status=401)
    ),
    "503 behind a programmer's class that cannot travel": lambda: with_cause(
        local_class(TypeError), NeedsKeywords("away", status=503)
    ),
    "connection behind a class that cannot travel": lambda: with_cause(
        local_class(KeyError), local_class(ConnectionError)
    ),
    "quota in botocore's way": lambda: with_attributes(
        local_class(Exception),
        response={
            "Error": {"Code": "ServiceQuotaExceededException"},
            "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {"x-id": "1"}},
        },
    ),
    "413 behind a class that cannot travel": lambda: with_cause(
        local_class(ValueError), NeedsKeywords("too much", status=413)
    ),
    "group": lambda: ExceptionGroup(
        "two", [NeedsKeywords("bad key", status=401), local_class(OSError)]
    ),
    "group with a constructor": lambda: Several([HoldsALock(1, 2), ValueError("x")], 401),
    "group in a group": lambda: ExceptionGroup(
        "outer", [ExceptionGroup("inner", [HoldsALock(1, 2)]), KeyError("k")]
    ),
    "errors among its attributes": lambda: with_attributes(
        SaysItTwice("last"), last=HoldsALock(1, 2), all=[HoldsALock(3, 4)]
    ),
    "argument with an address in its text": lambda: ValueError(object()),
    "argument that cannot travel": lambda: LookupError("lock", threading.Lock()),
    "missing file": lambda: FileNotFoundError(2, "No such file", "/some/file"),
    "undecodable": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "no JSON": lambda: json.JSONDecodeError("Expecting value", "doc", 1),
    "missing module": lambda: ImportError("no x", name="x", path="/x"),
    "SQLite": lambda: sqlite3.OperationalError("database is locked"),
    "cut off": lambda: asyncio.IncompleteReadError(b"", 3),
    "urllib": http_error,
    "circle": circle,
    "in itself": in_itself,
}


def shape(error: BaseException | None, depth: int = 0) -> Any:
    """Return everything by which errors are judged and shown, with all that belongs to them."""
    if error is None or depth > 6:
        return None
    try:
        text = str(error)
    except Exception as problem:
        text = f"cannot: {problem}"
    answers = [
        ask(error)  # type: ignore[operator]
        for ask in (
            http_status,
            headers_of,
            default_retry,
            may_split,
            should_split,
            congestion,
        )
    ]
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return (
        (type(error).__module__, type(error).__qualname__, text),
        (retry_after_of(error, now=0.0), *answers),
        [shape(member, depth + 1) for member in members],
        shape(error.__cause__, depth + 1),
    )


def came_back(error: Exception) -> Exception:
    """The error that arrives when a call on a worker raises one."""

    def call(item: int) -> int:
        raise error

    reply = run_group(ItemGroup(RemoteFunction(call), [1], ["item 0"]))
    return pickle.loads(pickle.dumps(reply)).errors[0]


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.real_time
def test_an_error_of_a_worker_is_judged_as_it_was_there(name: str):
    """Its kind, message, status, headers, causes and members too."""
    error = STRANGERS[name]()
    expected = shape(error)
    back = came_back(error)
    if name == "circle":  # which ends where it would close
        assert back.__cause__ is not None
        assert back.__cause__.__cause__ is None
        assert shape(back)[:3] == expected[:3]
    else:
        assert shape(back) == expected


def forgetful(error: BaseException) -> tuple[object, ...]:
    """Pickle an error so that it comes back without what it was made with."""
    return type(error).__new__, (type(error),)


@pytest.mark.parametrize("name", sorted(set(STRANGERS) - {"circle"}))
@pytest.mark.real_time
def test_an_error_survives_a_package_that_changed_how_its_class_is_pickled(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """As tblib does for every class of error once Dask is imported: some then lose their text."""
    error = STRANGERS[name]()
    expected = shape(error)
    for kind in type(error).__mro__:
        if issubclass(kind, BaseException):
            monkeypatch.setitem(copyreg.dispatch_table, kind, forgetful)
    assert shape(came_back(error)) == expected


KEEPS_ITS_CLASS = set(STRANGERS) - {
    "cannot be shown",
    *(name for name in STRANGERS if "class that cannot travel" in name),
    "quota in the body",
    "quota in botocore's way",
}


@pytest.mark.parametrize("name", sorted(KEEPS_ITS_CLASS))
@pytest.mark.real_time
def test_an_error_whose_class_can_travel_is_one_of_that_class(name: str):
    """So that `retry_on=` and `except` know it, whatever its constructor wants."""
    error = STRANGERS[name]()
    assert type(came_back(error)) is type(error)


@pytest.mark.parametrize(
    "base", [ConnectionError, TimeoutError, ValueError, TypeError, OSError, KeyError, UnicodeError]
)
@pytest.mark.real_time
def test_what_stands_for_an_error_is_one_of_the_same_built_in_kind(base: type[Exception]):
    """And says that it only stands for it."""
    error = came_back(local_class(base))
    assert isinstance(error, RemoteError)
    assert isinstance(error, base)
    assert type(error).__qualname__ == "local_class.<locals>.Local"
    assert type(error).__module__ == __name__


@pytest.mark.real_time
def test_what_stands_for_an_error_can_be_pickled_again():
    """To another pool, or into a file."""
    error = came_back(with_attributes(local_class(ValueError), status_code=413))
    again = pickle.loads(pickle.dumps(error))
    assert shape(again) == shape(error)
    assert isinstance(again, RemoteError)


@pytest.mark.parametrize(
    "name", ["openai", "anthropic", "httpx", "requests", "aiohttp", "botocore", "google.api_core"]
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 503])
@pytest.mark.real_time
def test_the_errors_of_real_clients_come_back_as_themselves(name: str, status: int):
    """As if they had been raised here."""
    needs(name)
    for error in errors_of(name, status):
        back = came_back(error)
        assert type(back) is type(error)
        assert shape(back) == shape(error)
        assert http_status(back) == status
        assert retry_after_of(back) == 3


def errors_of(name: str, status: int) -> list[Exception]:
    """The error of a client for a status with a Retry-After."""
    headers = {"Retry-After": "3", "x-request-id": "r-1"}
    body = {"error": {"code": "insufficient_quota", "type": "t", "message": "no"}}
    if name == "requests":
        import requests

        reply = requests.Response()
        reply.status_code = status
        reply.headers.update(headers)
        reply._content = json.dumps(body).encode()
        reply.raw = threading.Lock()  # a connection
        return [requests.HTTPError(f"{status}", response=reply)]
    if name == "botocore":
        from botocore.exceptions import ClientError

        metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
        answer: Any = {"Error": {"Code": "X", "Message": "no"}, "ResponseMetadata": metadata}
        return [ClientError(answer, "InvokeModel")]
    if name == "google.api_core":
        from google.api_core.exceptions import from_http_status

        wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}
        refused = from_http_status(status, "no", errors=[threading.Lock()], details=[wait])
        return [refused]
    if name == "aiohttp":
        import aiohttp
        from multidict import CIMultiDict, CIMultiDictProxy
        from yarl import URL

        url, sent = URL("http://x.test/v1"), CIMultiDictProxy(CIMultiDict(headers))
        asked = aiohttp.RequestInfo(url, "POST", sent, url)
        return [aiohttp.ClientResponseError(asked, (), status=status, message="no", headers=sent)]
    import httpx

    request = httpx.Request("POST", "http://x.test/v1")
    replies = [httpx.Response(status, headers=headers, json=body, request=request) for _ in "12"]
    replies[1].extensions["network_stream"] = threading.Lock()  # type: ignore[assignment]  # as a real one
    if name == "httpx":
        return [httpx.HTTPStatusError("no", request=request, response=reply) for reply in replies]
    sdk = __import__(name)
    kinds = {
        kind.status_code: kind
        for kind in list(vars(sdk).values())
        if isinstance(kind, type) and isinstance(vars(kind).get("status_code"), int)
    }
    kind = kinds.get(status, sdk.APIStatusError)
    return [kind("no", response=reply, body=body["error"]) for reply in replies]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"])
@pytest.mark.real_time
def test_an_error_of_grpc_comes_back_as_itself(code: str):
    """Though it is the call too, with its locks and its channel."""
    needs("grpc")
    import grpc

    server = grpc.server(ThreadPoolExecutor(1))

    def refuse(_: Any, context: Any) -> Any:
        context.set_trailing_metadata((("retry-after", "3"),))
        context.abort(grpc.StatusCode[code], "no")

    handler = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Service", {"Ask": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/test.Service/Ask", None, None, _registered_method=False)(b"")
        back = came_back(raised.value)
        expected = shape(raised.value)
    server.stop(None).wait()
    assert shape(back) == expected
    assert http_status(back) in (503, 401, 429)
    assert retry_after_of(back) == 3
    assert isinstance(back, grpc.RpcError)


@settings(max_examples=60, deadline=None)
@given(
    picks=st.lists(st.sampled_from(sorted(set(STRANGERS) - {"circle"})), min_size=1, max_size=5),
    ways=st.lists(st.sampled_from(["cause", "group", "context"]), min_size=5, max_size=5),
)
@pytest.mark.real_time
def test_errors_in_groups_and_causes_are_judged_as_they_were_there(
    picks: list[str], ways: list[str]
):
    """However they are put together."""
    error = STRANGERS[picks[0]]()
    for name, way in zip(picks[1:], ways, strict=False):
        other = STRANGERS[name]()
        if way == "group":
            error = ExceptionGroup("some", [error, other])
        elif way == "cause" and other.__cause__ is None:
            BaseException.__setattr__(other, "__cause__", error)
            error = other
        elif other.__context__ is None:
            BaseException.__setattr__(other, "__context__", error)
            error = other
    expected = shape(error)
    back = came_back(error)
    assert shape(back) == expected


@pytest.mark.parametrize("length", [10, 1_000])
@pytest.mark.real_time
def test_a_chain_of_causes_comes_back_as_far_as_it_goes(length: int):
    """An endless one is cut, and costs no stack."""
    error, causes = came_back(long_chain(length)), 0
    while error.__cause__ is not None:
        error, causes = error.__cause__, causes + 1  # type: ignore[assignment]
        assert http_status(error) == 500 or isinstance(error, RemoteError)
    assert causes == min(length, remote_errors.MAX_DEPTH)


@pytest.mark.parametrize(
    "making",
    [lambda: deep_group(1_000), lambda: ExceptionGroup("w", [ValueError(n) for n in range(2_000)])],
)
@pytest.mark.real_time
def test_a_huge_group_comes_back_as_a_group(making: WidgetFactory):
    """Deep or wide."""
    error = making()
    back = came_back(error)
    assert isinstance(back, ExceptionGroup)
    assert str(back) == str(error)


@pytest.mark.real_time
def test_notes_and_the_workers_traceback_come_back(monkeypatch: pytest.MonkeyPatch):
    """The notes first; with notes that are none, the traceback all the same."""
    error = HoldsALock(1, 2)
    error.add_note("while reading page 3")
    first, second = came_back(error).__notes__
    assert first == "while reading page 3"
    assert second.startswith("On the worker:")
    assert "in call" in second
    for notes in (None, 5, "text"):
        odd = with_attributes(ValueError("odd"), __notes__=notes)
        assert "in call" in came_back(odd).__notes__[-1]


@pytest.mark.real_time
def test_an_error_with_a_huge_text_brings_a_note_that_is_not():
    """A megabyte of HTML for each of a thousand items would be a gigabyte."""
    (note,) = came_back(ValueError("<p>" * 400_000)).__notes__
    assert len(note) < 20_000


@pytest.mark.real_time
def test_an_error_whose_class_cannot_be_looked_at_comes_back_as_some_error():
    """With what can be said of it."""
    with armed():
        error = came_back(OfAHiddenKind("away"))
    assert isinstance(error, Exception)
    assert "away" in str(error)


class HangsWhenLoaded(ConnectionError):
    """Loading it waits for something that never comes."""

    def __setstate__(self, state: Any) -> None:
        threading.Event().wait()


@pytest.mark.real_time
def test_an_error_that_hangs_when_it_is_loaded_comes_back_as_a_stand_in(
    monkeypatch: pytest.MonkeyPatch,
):
    """The worker gives it a moment, and this process never tries."""
    monkeypatch.setattr(remote_errors, "PICKLE_TIMEOUT", 0.05)
    error = came_back(HangsWhenLoaded("away"))
    assert isinstance(error, RemoteError)
    assert isinstance(error, ConnectionError)
    assert (type(error).__name__, str(error)) == ("HangsWhenLoaded", "away")


# ---- the same job here and there


IN_JOBS = sorted(
    name
    for name in STRANGERS
    if name != "answers nothing" and not retry_after_of(STRANGERS[name]())
)
"""Those that a job does not wait for."""


@pytest.mark.parametrize("name", IN_JOBS)
@pytest.mark.real_time
async def test_a_job_goes_on_from_an_error_as_it_would_without_workers(name: str):
    """It tries again, gives up or stops as it would have done here."""

    def call(item: int) -> int:
        raise STRANGERS[name]()

    async def outcome(executor: Any) -> Any:
        retry = AsyncRetry(2, 0.0, jitter=None)
        processor = AsyncBatchProcessor(call, 1, 1, retry=retry, executor=executor)
        result = await processor.process([1])
        return result[0].attempts, result.stopped_because

    assert await outcome(ByPost()) == await outcome(None)


@pytest.mark.parametrize("retry_on", [None, Exception, lambda error: True])
async def test_what_is_no_exception_fails_its_item_and_is_never_retried(retry_on: Any):
    """It says what was raised; the other items of the group are done."""

    class Panic(BaseException):
        pass

    def call(item: int) -> int:
        raised = [None, SystemExit(3), KeyboardInterrupt(), Panic("in Rust"), GeneratorExit()][item]
        if raised is not None:
            raise raised
        return item

    processor = AsyncBatchProcessor(
        call, 8, 1, executor=ByPost(), retry=AsyncRetry(2, 0.0, retry_on=retry_on)
    )
    result = await processor.process(iter(range(5)))
    assert [outcome.status for outcome in result] == ["done"] + 4 * ["failed"]
    assert [outcome.attempts for outcome in result] == [1] * 5
    assert [type(error) for error in result.errors[1:]] == [CallAborted] * 4
    texts = [str(error).removeprefix("the call raised ") for error in result.errors[1:]]
    assert texts == ["SystemExit: 3", "KeyboardInterrupt", "Panic: in Rust", "GeneratorExit"]


@pytest.mark.parametrize("retry_on", [None, ConnectionError])
async def test_a_call_that_is_cancelled_on_its_worker_is_retried_like_a_lost_connection(
    retry_on: Any,
):
    """Nobody here asked for it."""
    tried: list[int] = []

    def call(item: int) -> int:
        tried.append(item)
        if len(tried) == 1:
            raise asyncio.CancelledError
        return item

    retry = AsyncRetry(1, 0.0, retry_on=retry_on)
    (outcome,) = await AsyncBatchProcessor(call, executor=ByPost(), retry=retry).process([7])
    assert (outcome.status, outcome.attempts) == ("done", 2)


def test_what_was_aborted_keeps_what_was_raised():
    """As its cause."""
    raised = SystemExit(3)
    assert aborted_call(raised).__cause__ is raised


# ---- real processes


def raises(name: str) -> None:
    """Raise one of the strangers."""
    raise STRANGERS[name]()


@pytest.mark.real_time
async def test_a_pool_of_processes_survives_every_error():
    """Each is its item's failure; the pool is the same one at the end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        processor = AsyncBatchProcessor(
            raises, 4, 1, executor=pool, retry=AsyncRetry(0, retry_on=lambda _: False)
        )
        result = await processor.process([*IN_JOBS, "nothing of the kind"])
        assert result.error_count == len(IN_JOBS) + 1
        assert pool.submit(int, "7").result() == 7
    for name, error in zip(IN_JOBS, result.errors, strict=False):
        expected = STRANGERS[name]()
        assert type(error).__qualname__ == type(expected).__qualname__, name
        assert http_status(error) == http_status(expected), name  # type: ignore[arg-type]
    assert isinstance(result.errors[-1], KeyError)
