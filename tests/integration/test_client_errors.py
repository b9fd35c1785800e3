"""Errors of real client libraries: their status, their Retry-After, and what follows from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from ragasync import FATAL, AsyncBatchProcessor, AsyncRetry

# Internals: the verdict on each error, without a run for each.
from ragasync._retries.classify import congestion, default_retry, may_split, should_split
from ragasync._retries.http import headers_of, http_status
from ragasync._retries.retry_after import retry_after_of
from tests.support.requirements import needs

# A google.rpc.Status with a RetryInfo of 53.2 s, as a server of Google sends it.
RETRY_INFO = (
    b"\x08\x08\x12\x01x\x1a5\n(type.googleapis.com/google.rpc.RetryInfo"
    b"\x12\t\n\x07\x085\x10\x80\x84\xaf_"
)


def facts(error: BaseException) -> tuple[object, object, object]:
    """Return the status, the verdict and the Retry-After of an error."""
    return http_status(error), default_retry(error), retry_after_of(error)


# httpx, and the SDKs built upon it


def httpx_response(sdk: Any, status: int, headers: dict[str, str], body: object) -> Any:
    """Return a response of the httpx that an SDK uses, which may be a fork of it."""
    base = sdk.APIStatusError.__init__.__annotations__["response"]
    module = __import__("httpx2" if "httpx2" in str(base) else "httpx")
    request = module.Request("POST", "http://localhost/v1/embeddings")
    return module.Response(status, headers=headers, json=body, request=request)


def sdk_error(name: str, status: int, headers: dict[str, str], body: dict[str, Any]) -> Any:
    """Return the error that openai or anthropic makes of a response."""
    needs(name)
    sdk = __import__(name)
    client = (sdk.OpenAI if name == "openai" else sdk.Anthropic)(api_key="none")
    return client._make_status_error_from_response(httpx_response(sdk, status, headers, body))


SDKS = pytest.mark.parametrize("name", ["openai", "anthropic"])


@SDKS
@pytest.mark.parametrize(
    ("status", "verdict"),
    [(400, False), (401, FATAL), (403, False), (404, False), (429, True), (500, True), (529, True)],
)
def test_the_status_of_an_sdk_decides(name: str, status: int, verdict: object) -> None:
    """As it does with any client."""
    error = sdk_error(name, status, {"retry-after": "7"} if status == 429 else {}, {})
    assert facts(error) == (status, verdict, 7.0 if status == 429 else None)


@SDKS
def test_an_error_of_an_sdk_in_a_group_or_behind_a_cause_is_the_same(name: str) -> None:
    """A task group and a wrapper hide nothing."""
    error = sdk_error(name, 401, {"retry-after": "3"}, {})
    group = ExceptionGroup("unhandled errors in a TaskGroup (1 sub-exception)", [error])
    wrapper = RuntimeError("embedding failed")
    wrapper.__cause__ = error
    assert facts(group) == facts(wrapper) == (401, FATAL, 3.0)


def test_a_used_up_quota_of_openai_is_fatal() -> None:
    """Its code is a field of the body, which the SDK keeps."""
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    error = sdk_error("openai", 429, {}, body)
    assert default_retry(error) is FATAL
    body["error"] = {"message": "insufficient_quota", "code": "rate_limit_exceeded"}
    assert default_retry(sdk_error("openai", 429, {}, body)) is True


@SDKS
def test_the_words_of_an_sdk_are_read_on_a_429(name: str) -> None:
    """Some gateways state the time nowhere else."""
    body = {"error": {"message": "Rate limit reached. Please try again in 1m30s."}}
    assert retry_after_of(sdk_error(name, 429, {}, body)) == 90.0
    assert retry_after_of(sdk_error(name, 400, {}, body)) is None


@pytest.mark.real_time
@pytest.mark.parametrize("url", ["localhost:9/v1", "ftp://localhost/v1"])
async def test_an_address_that_no_client_can_use_is_not_retried(url: str) -> None:
    """Openai wraps everything in a connection error; the cause says what is wrong."""
    needs("openai")
    import openai

    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError) as caught:
            await client.embeddings.create(input="a", model="m")
    assert default_retry(caught.value) is False


@pytest.mark.real_time
async def test_a_client_that_is_closed_is_not_retried_and_splits_no_batch() -> None:
    """It is closed for all items of the batch, but another item may bring another client."""
    needs("openai")
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url="http://localhost:9/v1", max_retries=0)
    await client.close()
    with pytest.raises((openai.APIConnectionError, RuntimeError)) as caught:
        await client.embeddings.create(input="a", model="m")
    assert default_retry(caught.value) is False
    assert not may_split(caught.value)


@pytest.mark.real_time
async def test_closed_clients_of_httpx_and_aiohttp_are_not_retried() -> None:
    """They say so in a RuntimeError."""
    needs("httpx", "aiohttp")
    import aiohttp
    import httpx

    client, session = httpx.AsyncClient(), aiohttp.ClientSession()
    await client.aclose()
    await session.close()
    for call in (client.get, session.get):
        with pytest.raises(RuntimeError) as caught:
            await call("http://localhost:9/")  # type: ignore[operator]
        assert default_retry(caught.value) is False


@pytest.mark.real_time
async def test_wrong_addresses_of_httpx_and_aiohttp_are_not_retried() -> None:
    """No wait makes an address of it."""
    needs("httpx", "aiohttp")
    import aiohttp
    import httpx

    async with httpx.AsyncClient() as client, aiohttp.ClientSession() as session:
        for call, url in (
            *((client.get, url) for url in ("localhost/v1", "ftp://localhost/", "http://\0")),
            *((session.get, url) for url in ("http://", "ftp://localhost/")),
        ):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - each has its own
                await call(url)  # type: ignore[operator]
            assert default_retry(caught.value) is False, caught.value


@pytest.mark.parametrize("url", ["localhost/v1", "http://", "ftp://localhost/"])
def test_wrong_addresses_of_requests_are_not_retried(url: str) -> None:
    """MissingSchema, InvalidURL and InvalidSchema."""
    needs("requests")
    import requests

    with pytest.raises(requests.RequestException) as caught:
        requests.get(url, timeout=1)
    assert default_retry(caught.value) is False


@pytest.mark.real_time
async def test_a_session_of_another_loop_is_a_mismatch() -> None:
    """Aiohttp looks for the current task on the loop of its session."""
    needs("aiohttp")
    import aiohttp

    session = aiohttp.ClientSession()

    async def use() -> None:
        await session.get("http://127.0.0.1:9/")

    with pytest.raises(RuntimeError) as caught:
        await asyncio.to_thread(asyncio.run, use())
    await session.close()
    assert default_retry(caught.value) is FATAL


def test_a_reply_that_aiohttp_could_not_read_is_a_lost_connection() -> None:
    """Its parser's errors have a code of 400, which is what a server would answer to a client."""
    needs("aiohttp")
    from aiohttp import ClientPayloadError
    from aiohttp.http_exceptions import ContentLengthError

    error = ClientPayloadError("Response payload is not completed")
    error.__cause__ = ContentLengthError("not enough data")
    assert facts(error) == (None, True, None)
    assert not should_split(error)


# botocore


def aws_error(
    code: str, status: int | None = 400, headers: dict[str, str] | None = None
) -> Exception:
    """Return the error that botocore raises for an answer of AWS."""
    needs("botocore")
    from botocore.exceptions import ClientError

    answer: dict[str, Any] = {"Error": {"Code": code, "Message": "see the code"}}
    if status is not None:
        answer["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return ClientError(answer, "InvokeModel")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "status", "expected", "verdict"),
    [
        *((code, 400, 429, True) for code in ("ThrottlingException", "TooManyRequestsException")),
        *((code, 400, 429, True) for code in ("SlowDown", "RequestLimitExceeded")),
        ("ProvisionedThroughputExceededException", 400, 429, True),
        ("ThrottlingException", None, 429, True),
        ("TooManyRequestsException", 429, 429, True),
        ("SlowDown", 503, 503, True),
        ("RequestTimeout", 400, 408, True),
        *((code, 400, 401, FATAL) for code in ("ExpiredToken", "UnrecognizedClientException")),
        ("ExpiredTokenException", 403, 401, FATAL),
        ("AccessDeniedException", 400, 403, False),
        ("AccessDenied", 403, 403, False),
        ("ValidationException", 400, 400, False),
        ("NoSuchKey", 404, 404, False),
        ("InternalFailure", 500, 500, True),
        ("ServiceQuotaExceededException", 400, 400, FATAL),
    ],
)
def test_the_codes_of_aws_are_read(
    code: str, status: int | None, expected: int, verdict: object
) -> None:
    """AWS answers 400 to much that is no fault of the data."""
    error = aws_error(code, status)
    assert (http_status(error), default_retry(error)) == (expected, verdict)


def test_throttling_by_aws_neither_splits_nor_goes_unnoticed() -> None:
    """It is a 429 in everything but its status."""
    error = aws_error("ThrottlingException")
    assert not should_split(error)
    assert not may_split(error)
    assert congestion(error) == "rate_limited"


def test_the_headers_of_aws_are_read() -> None:
    """They are beside the status."""
    assert retry_after_of(aws_error("SlowDown", 503, {"Retry-After": "4"})) == 4.0


# gRPC and Google


def grpc_error(code: str, *metadata: tuple[str, str | bytes], details: str = "x") -> Exception:
    """Return the error that grpc.aio raises."""
    needs("grpc")
    import grpc

    return grpc.aio.AioRpcError(
        getattr(grpc.StatusCode, code),
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*metadata),
        details=details,
    )


@pytest.mark.parametrize(
    ("code", "status", "verdict"),
    [
        ("UNAVAILABLE", 503, True),
        ("RESOURCE_EXHAUSTED", 429, True),
        ("DEADLINE_EXCEEDED", 504, True),
        ("ABORTED", 409, True),
        ("INTERNAL", 500, True),
        ("UNKNOWN", 500, True),
        ("UNAUTHENTICATED", 401, FATAL),
        ("PERMISSION_DENIED", 403, False),
        ("INVALID_ARGUMENT", 400, False),
        ("NOT_FOUND", 404, False),
        ("OUT_OF_RANGE", 400, False),
    ],
)
def test_the_codes_of_grpc_are_http_statuses(code: str, status: int, verdict: object) -> None:
    """The table is that of google.rpc.Code."""
    assert facts(grpc_error(code)) == (status, verdict, None)


def test_every_code_of_grpc_but_ok_has_a_status() -> None:
    """None was forgotten."""
    needs("grpc")
    import grpc

    statuses = {code: http_status(grpc_error(code.name)) for code in grpc.StatusCode}
    assert [code.name for code, status in statuses.items() if status is None] == ["OK"]


def test_retry_info_in_the_metadata_of_grpc_is_read_without_googles_classes() -> None:
    """It is a protobuf message within another."""
    assert retry_after_of(grpc_error("UNAVAILABLE", ("grpc-status-details-bin", RETRY_INFO))) == (
        pytest.approx(53.2)
    )


def test_the_bytes_are_what_google_makes_of_a_retry_info() -> None:
    """The example above is no invention."""
    needs("google.rpc")
    from google.rpc import error_details_pb2, status_pb2

    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = 53, 200_000_000
    status = status_pb2.Status(code=8, message="x")
    status.details.add().Pack(info)
    assert status.SerializeToString() == RETRY_INFO
    alone = grpc_error("INTERNAL", ("google.rpc.retryinfo-bin", info.SerializeToString()))
    assert retry_after_of(alone) == pytest.approx(53.2)
    info.retry_delay.seconds = -1
    past = grpc_error("INTERNAL", ("google.rpc.retryinfo-bin", info.SerializeToString()))
    assert retry_after_of(past) is None


@pytest.mark.parametrize("end", range(len(RETRY_INFO)))
def test_a_message_that_is_cut_off_asks_for_no_more_than_the_whole(end: int) -> None:
    """Wherever it is cut, nothing raises."""
    wait = retry_after_of(grpc_error("UNAVAILABLE", ("grpc-status-details-bin", RETRY_INFO[:end])))
    assert wait in (None, 0.0, 53.0)


@pytest.mark.parametrize("junk", [b"\xff" * 40, b"\x1a\xff\xff\xff\xff\x7f", b"\x00", bytes(999)])
def test_bytes_that_are_no_message_ask_for_nothing(junk: bytes) -> None:
    """Neither time nor memory is spent on them."""
    assert retry_after_of(grpc_error("UNAVAILABLE", ("grpc-status-details-bin", junk))) is None


def test_texts_in_the_metadata_are_headers() -> None:
    """The pushback of gRPC (gRFC A6) is in milliseconds."""
    error = grpc_error("UNAVAILABLE", ("grpc-retry-pushback-ms", "250"), ("x-trace", "1"))
    assert headers_of(error)["x-trace"] == "1"
    assert retry_after_of(error) == 0.25


def test_errors_of_google_api_core_over_grpc_are_read() -> None:
    """The status is in code, and the RetryInfo a message among the details."""
    needs("google.api_core", "grpc_status")
    from google.api_core import exceptions

    error = exceptions.from_grpc_error(
        grpc_error("RESOURCE_EXHAUSTED", ("grpc-status-details-bin", RETRY_INFO))
    )
    assert facts(error) == (429, True, pytest.approx(53.2))


def test_errors_of_google_api_core_over_rest_are_read() -> None:
    """The RetryInfo is decoded JSON."""
    needs("google.api_core", "requests")
    import requests
    from google.api_core import exceptions

    response = requests.Response()
    response.status_code = 503
    response.request = requests.Request("GET", "http://localhost/").prepare()
    response._content = json.dumps({"error": google_body()["error"]}).encode()
    assert facts(exceptions.from_http_response(response)) == (503, True, 53.0)


def google_body(reason: str = "RATE_LIMIT_EXCEEDED") -> dict[str, Any]:
    """Return the JSON of Google's REST errors."""
    kind = "type.googleapis.com/google.rpc."
    return {
        "error": {
            "code": 429,
            "message": "Quota exceeded",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": kind + "ErrorInfo", "reason": reason},
                {"@type": kind + "RetryInfo", "retryDelay": "53s"},
            ],
        }
    }


class GenAIError(Exception):
    """An error as google-genai makes it: the code, and the decoded JSON in `details`."""

    def __init__(self, details: object) -> None:
        super().__init__("429 RESOURCE_EXHAUSTED")
        self.code, self.status, self.details = 429, "RESOURCE_EXHAUSTED", details


@pytest.mark.parametrize("shape", [lambda body: body, lambda body: [body]])
def test_the_json_of_google_is_read(shape: Callable[[object], object]) -> None:
    """Gemini answers with a list of errors to clients of OpenAI."""
    assert facts(GenAIError(shape(google_body()))) == (429, True, 53.0)
    assert default_retry(GenAIError(shape(google_body("BILLING_DISABLED")))) is FATAL


# In a job


async def test_a_rejected_key_in_a_task_group_is_asked_once() -> None:
    """The job stops at the first of a thousand items."""
    error = sdk_error("openai", 401, {}, {})
    calls: list[int] = []

    async def embed(item: int) -> None:
        calls.append(item)
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(error))

    processor = AsyncBatchProcessor(embed, max_concurrency=1, retry=AsyncRetry(3))
    result = await processor.process(range(1_000))
    assert calls == [0]
    assert (result.error_count, result.pending_count) == (1, 999)


async def fail(error: BaseException) -> None:
    """Raise an error."""
    raise error


async def test_words_of_an_item_stop_no_job() -> None:
    """Whatever asyncio would say in their place."""

    async def parse(item: int) -> None:
        raise ValueError('expected JSON, got "Task got Future attached to a different loop"')

    result = await AsyncBatchProcessor(parse, retry_count=0).process(range(20))
    assert (result.error_count, result.pending_count) == (20, 0)
