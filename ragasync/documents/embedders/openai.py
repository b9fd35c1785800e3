"""OpenAIEmbedder: vectors from OpenAI, or from a service with the same API."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ragasync._bridge.run_async import run_async
from ragasync._limits.limiter import RateLimiter
from ragasync._retries.classify import FATAL, Verdict, default_retry
from ragasync._retries.http import headers_of
from ragasync._retries.policy import AsyncRetry
from ragasync._retries.retry_after import number_of, seconds_of
from ragasync.arguments import (
    check_count,
    check_number,
    check_seconds,
    explains_arguments,
    is_async,
)
from ragasync.batch import AsyncBatchProcessor
from ragasync.documents.embedders import check_texts
from ragasync.documents.embedders.openai_http import (
    OPENAI,
    Dimension,
    HttpService,
    Opened,
    RedirectRefused,
    Reply,
    VectorEncoding,
    WrongDimension,
    address_of,
    checked_headers,
    headers_to_keep,
    host_of,
    reply_of,
)
from ragasync.documents.stage import Stage
from ragasync.errors import AttemptTimeout, ItemTooLargeError
from ragasync.estimate import estimated_tokens
from ragasync.usage import note_usage

_ARGUMENTS: Final = ("model", "dimensions", "input")
"""Fields that have an argument of their own and must not be in `extra_body`."""

_REMEMBERED: Final = 4096
"""The number of texts whose exact count of tokens is kept."""

_CHANGES_NO_VECTOR: Final = frozenset({"encoding_format", "user"})


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """
    The weight of a text in a batch, in tokens; a text too large for any call is refused.

    With an exact count, a text over `max_tokens` is refused. With an estimate, only a text over
    twice `max_tokens` is refused; a text between the two gets a call of its own, so that the
    service decides, and a refusal affects no other text.

    Args:
        count: counts the tokens of a text.
        is_exact: whether `count` is exact rather than an estimate.
        max_tokens: the maximum number of tokens in one text; None for no bound.
        max_batch_tokens: the maximum number of tokens in one call.
    """

    count: Callable[[str], int]
    is_exact: bool
    max_tokens: int | None
    max_batch_tokens: int

    def __call__(self, text: str) -> int:
        """Weigh a text; ValueError if it is empty: a service would refuse the whole batch."""
        if not text:
            raise ValueError("expected a text to embed, got an empty one: leave it out")
        tokens = self.count(text)
        if self.max_tokens is None or tokens <= self.max_tokens:
            return min(tokens, self.max_batch_tokens)
        if self.is_exact or tokens > 2 * self.max_tokens:
            about = "" if self.is_exact else "about "
            raise ItemTooLargeError(
                f"this text of {len(text):,} characters has {about}{tokens:,} tokens, and the "
                f"model takes {self.max_tokens:,} (max_tokens=): cut it into smaller chunks"
            )
        return self.max_batch_tokens


def token_budget(
    count: Callable[[str], int] | None, max_tokens: int | None, max_batch_tokens: int
) -> TokenBudget:
    """
    Build a TokenBudget from an exact counter, or from `estimated_tokens` without one.

    A text is counted for its batch, for each limiter and for each attempt. Exact counts are slow,
    so the latest are cached.
    """
    if max_tokens is not None:
        check_count("max_tokens", max_tokens, at_least=1)
    check_count("max_batch_tokens", max_batch_tokens, at_least=1)
    if count is None:
        return TokenBudget(estimated_tokens, False, max_tokens, max_batch_tokens)
    if not callable(count):
        raise TypeError(f"count_tokens must be a function of one text, got {count!r}")
    return TokenBudget(lru_cache(_REMEMBERED)(count), True, max_tokens, max_batch_tokens)


class ClientService:
    """
    A service behind a user's client with `embeddings.create(model=, input=)`.

    An SDK's own retries are switched off, because they would multiply with ours and bypass the
    limiters; its headers are read where it shows them. A sync client is called on a thread.
    """

    def __init__(
        self, client: Any, extra: Mapping[str, object], sending: Callable[[], None]
    ) -> None:
        self._has_sdk_options = isinstance(getattr(client, "max_retries", None), int)
        if self._has_sdk_options:
            client = client.with_options(max_retries=0)
        if not callable(getattr(getattr(client, "embeddings", None), "create", None)):
            raise TypeError(
                f"client must have embeddings.create(model=, input=), as an AsyncOpenAI has, "
                f"got a {type(client).__name__}"
            )
        self._client = client
        self._extra = {"extra_body": dict(extra)} if extra else {}
        self._sending = sending
        # An SDK asks for base64 by itself.
        is_fixed = not self._has_sdk_options or "encoding_format" in extra
        self.encoding = VectorEncoding({}, {"encoding_format": "float"}, is_fixed=is_fixed)
        self.host = ""
        if self._has_sdk_options:
            self.host = host_of(urlsplit(str(getattr(client, "base_url", ""))))

    @asynccontextmanager
    async def opened(self, for_one_call: bool = False) -> AsyncIterator[Opened]:
        """The client itself, for any number of calls."""
        yield Opened(self._client, for_one_call)

    async def send(
        self,
        client: Any,
        body: Mapping[str, Any],
        dimension: int | None,  # noqa: ARG002  # the client reads its replies as a whole
    ) -> Reply:
        """Request the vectors of `body["input"]`; raise as the client does."""
        self._sending()
        embeddings, asked = client.embeddings, {**body, **self._extra}
        shows_headers = self._has_sdk_options and hasattr(embeddings, "with_raw_response")
        create = (embeddings.with_raw_response if shows_headers else embeddings).create
        made = create(**asked) if is_async(create) else await asyncio.to_thread(create, **asked)
        answer = await made if hasattr(made, "__await__") else made
        if not shows_headers:
            return reply_of(answer, {})
        return reply_of(answer.parse(), headers_to_keep(answer.headers.items()))


def key_to_send(given: str | None, base_url: str, headers: Mapping[str, str]) -> str | None:
    """Return the given API key; OPENAI_API_KEY only for OpenAI, so that no other host gets it."""
    is_openai = address_of(base_url).hostname == urlsplit(OPENAI).hostname
    if given is None and "authorization" in headers:
        return None
    key = (given or (os.environ.get("OPENAI_API_KEY", "") if is_openai else "")).strip()
    if is_openai and not key:
        raise ValueError("expected a key: pass api_key=, or set OPENAI_API_KEY before the start")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key has characters that no header can hold: is it copied whole?")
    return key or None


def checked_extra(extra: Mapping[str, object] | None) -> dict[str, object]:
    """Return the extra fields of a request's body as plain JSON data, or raise."""
    if extra is None:
        return {}
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise TypeError(f"extra_body must be a dict of fields by name, got {extra!r:.200}")
    for name in _ARGUMENTS:
        if name in extra:
            advice = "the texts are its items" if name == "input" else f"pass {name}="
            raise ValueError(f"extra_body must not have {name!r}: {advice}")
    try:
        fields: dict[str, object] = json.loads(json.dumps(dict(extra), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"extra_body must be plain JSON data: {error}") from None
    return fields


def name_of_vectors(
    model: str, dimensions: int | None, host: str, extra: Mapping[str, object]
) -> str:
    """Return a name of the vectors from the model, dimension, host, and extra fields' digest."""
    shortened = "" if dimensions is None else f"-{dimensions}"
    elsewhere = f"@{host}" if host not in ("", urlsplit(OPENAI).hostname) else ""
    said = {name: value for name, value in extra.items() if name not in _CHANGES_NO_VECTOR}
    written = json.dumps(said, sort_keys=True).encode()
    digest = f"#{blake2b(written, digest_size=4).hexdigest()}" if said else ""
    return f"openai:{model}{shortened}{elsewhere}{digest}"


Kind = Literal["requests", "tokens"]
"""The unit of a limit."""

MINUTE = 60.0
"""The period of the limits in headers, and the longest pause for a header, in seconds."""

UNLIMITED = 1e18
"""The rate per second of a limiter without a known limit, at which nothing ever waits."""


class HeaderRateLimiter:
    """
    A limiter that follows the `x-ratelimit-*` headers of a service.

    Without a given rate, it takes the latest one in the headers, unless the limiter's rate was set
    by hand. If nothing remains, it pauses until the reset, at most a minute: the limits are for a
    minute, and a longer one answers 429.
    """

    def __init__(
        self, kind: Kind, per_minute: float | None, weight: Callable[[str], float] | None = None
    ) -> None:
        self._kind = kind
        rate = UNLIMITED * MINUTE if per_minute is None else per_minute
        self.limiter = RateLimiter(rate=rate, per=MINUTE, weight=weight)
        self._own_rate = self.limiter.rate if per_minute is None else None

    def update(self, headers: Mapping[str, str]) -> None:
        """Apply the headers of a response, by lower-case name, to the limiter."""
        limit, remaining, reset = (
            headers.get(f"x-ratelimit-{part}-{self._kind}")
            for part in ("limit", "remaining", "reset")
        )
        limiter = self.limiter
        if (stated := number_of(limit)) and limiter.rate == self._own_rate:
            self._own_rate = stated / MINUTE
            if limiter.rate != self._own_rate:
                limiter.rate = self._own_rate
        if number_of(remaining) == 0 and (seconds := seconds_of(reset)) is not None:
            limiter.pause(min(seconds, MINUTE))


class Spending:
    """Counts calls, tokens and cost, from any thread; `price` is that of a million tokens."""

    def __init__(self, price: float) -> None:
        check_number("price_per_million_tokens", price)
        self._price = price
        self._lock = threading.Lock()
        self.calls = 0
        self.tokens = 0

    @property
    def cost(self) -> float:
        """Cost of all tokens."""
        return self.tokens * self._price / 1e6

    def call(self) -> None:
        """Count a request."""
        with self._lock:
            self.calls += 1

    def answered(self, tokens: int) -> None:
        """Count the tokens of a response, which are paid for even if it is unusable."""
        with self._lock:
            self.tokens += tokens
        note_usage(tokens=tokens, cost=tokens * self._price / 1e6)


_FOR_A_SEARCH = AsyncRetry(2, 0.5, max_elapsed=30.0)


def unless_nothing_helps(error: Exception) -> Verdict:
    """Return FATAL for a wrong dimension or a refused redirect; else the default verdict."""
    return FATAL if isinstance(error, WrongDimension | RedirectRefused) else default_retry(error)


@explains_arguments
class OpenAIEmbedder:
    """
    Embed texts with OpenAI, or with a service that has the same API (vLLM, Ollama, a gateway).

    In a processor it brings its own Stage: batches bounded by number of texts and by tokens, a
    maximum concurrency, one limiter for requests and one for tokens, and its own retries. Without
    given rates, the limiters use those in the service's `x-ratelimit-*` headers. A batch that the
    service refuses is split until the bad text is isolated.

    Awaited on its own, it makes one call without limiters or retries, and opens a client for it;
    `async with embed.open() as client: await embed(texts, client)` opens a client for many calls.

    Example:
        >>> from types import SimpleNamespace
        >>> from ragasync import run_async
        >>> from ragasync.documents import OpenAIEmbedder
        >>> class Client:  # stands for an AsyncOpenAI
        ...     async def create(self, *, model, input):
        ...         return {"data": [{"embedding": [len(text), 1.0]} for text in input]}
        >>> client = SimpleNamespace(embeddings=Client())
        >>> embed = OpenAIEmbedder("text-embedding-3-small", client=client)
        >>> run_async(embed(["a text"])).shape
        (1, 2)

    Args:
        model: the model's name.
        client: an object with `embeddings.create(model=, input=)`, such as an AsyncOpenAI, which
            belongs to the event loop on which it was first used. Without one, httpx is used (extra
            `[openai]`), with one client per run.
        base_url: the URL of the service, with or without `/embeddings`; a query such as
            `?api-version=2024-10-21` is kept. Not with a `client`.
        api_key: the API key; by default OPENAI_API_KEY, but only for OpenAI itself.
        headers: further headers of each request, such as `{"api-key": key}`; not with a `client`.
        extra_body: further fields of each request, such as `{"input_type": "passage"}`. They are
            part of `name`, because they may change the vectors, and apply to searches too.
        dimensions: the requested length of vectors, for models that can shorten them.
        requests_per_minute: the rate; None for the rate in the service's headers.
        tokens_per_minute: the rate; None for the rate in the service's headers.
        price_per_million_tokens: the price from which `spent` and the run's cost are computed.
        max_batch: the maximum number of texts in one call.
        max_batch_tokens: the maximum number of tokens in one call.
        max_tokens: the maximum number of tokens in one text; a longer one fails alone, before any
            call. None for no bound.
        count_tokens: counts the tokens of a text; the default is `estimated_tokens`, which tends to
            be too high, so that a text fails only above twice `max_tokens`.
        timeout: the time limit of one call, in seconds.
        max_concurrency: the maximum number of concurrent calls.
        retry: the retry policy of failed calls; see AsyncRetry.
        name: the embedder's name in a store, if model and host do not identify the vectors.

    Raises:
        ValueError: an argument is out of range, or there is no key for OpenAI.
        TypeError: an argument has the wrong type.
        MissingExtra: httpx is not installed, and there is no `client`.
    """

    def __init__(
        self,
        model: str,
        *,
        client: Any = None,
        base_url: str = OPENAI,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, object] | None = None,
        dimensions: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        price_per_million_tokens: float = 0.0,
        max_batch: int = 256,
        max_batch_tokens: int = 300_000,
        max_tokens: int | None = 8191,
        count_tokens: Callable[[str], int] | None = None,
        timeout: float | timedelta = 60.0,
        max_concurrency: int = 8,
        retry: AsyncRetry | None = None,
        name: str | None = None,
    ) -> None:
        check_count("max_batch", max_batch, at_least=1)
        extra = checked_extra(extra_body)
        self._spending = Spending(price_per_million_tokens)
        self._service: HttpService | ClientService
        if client is None:
            own = checked_headers(headers or {})
            key = key_to_send(api_key, base_url, own)
            self._service = HttpService(base_url, key, own, extra, self._spending.call)
        elif headers:
            raise ValueError("headers= is for use without client=: set them on the client itself")
        else:
            self._service = ClientService(client, extra, self._spending.call)
        self._dimension = Dimension(dimensions)
        self._body = {"model": model} | ({} if dimensions is None else {"dimensions": dimensions})
        self._name = name or name_of_vectors(model, dimensions, self._service.host, extra)
        self._weigh = token_budget(count_tokens, max_tokens, max_batch_tokens)
        self._max_batch, self._max_batch_tokens = max_batch, max_batch_tokens
        self._requests = HeaderRateLimiter("requests", requests_per_minute)
        self._tokens = HeaderRateLimiter("tokens", tokens_per_minute, self._weigh.count)
        self._timeout = check_seconds("timeout", timeout, positive=True)
        self._max_concurrency = max_concurrency
        self._retry = retry or AsyncRetry(8, 0.5, retry_on=unless_nothing_helps)

    @property
    def name(self) -> str:
        """The name by which a store identifies the embedder of its vectors."""
        return self._name

    @property
    def dimension(self) -> int | None:
        """The length of each vector: the one asked for, or that of the first; None before it."""
        return self._dimension.known

    @property
    def calls(self) -> int:
        """Number of requests sent."""
        return self._spending.calls

    @property
    def tokens(self) -> int:
        """Tokens of these requests, as counted by the service or else by `count_tokens`."""
        return self._spending.tokens

    @property
    def spent(self) -> float:
        """Cost of these tokens."""
        return self._spending.cost

    @property
    def limiters(self) -> tuple[RateLimiter, RateLimiter]:
        """The limiters of requests and of tokens, which all runs share."""
        return self._requests.limiter, self._tokens.limiter

    def open(self) -> AbstractAsyncContextManager[Opened]:
        """Open a client on the running loop; for `resources=`, or for many calls."""
        return self._service.opened()

    async def __call__(
        self, texts: Sequence[str], client: Opened | None = None, /
    ) -> NDArray[np.float32]:
        """
        Embed texts by one call.

        Args:
            texts: the texts, none of them empty; lone surrogates count as question marks.
            client: a client from `open`; None opens one for this call.

        Returns:
            A float32 array of shape `(len(texts), dimension)`.

        Raises:
            TypeError: `texts` is a str, or an item is not a str.
            ItemTooLargeError: a text has too many tokens.
            ServiceRefusal: the service replied with an error.
            ResultCountError: the reply has more or fewer vectors than texts.
            WrongVector: a vector has another dimension, or is not finite.
            AttemptTimeout: the call took longer than `timeout`.
            BrokenReply: the reply cannot be read, or is larger than such vectors can be.
            RedirectRefused: the service redirects to another host.
        """
        check_texts(texts)
        for text in texts:
            self._weigh(text)
        if not texts:
            return np.zeros((0, self._dimension.known or 0), dtype=np.float32)
        if client is not None:
            return await self._embedded(texts, client)
        async with self._service.opened(for_one_call=True) as own:
            return await self._embedded(texts, own)

    def query(self, text: str) -> NDArray[np.float32]:
        """Embed one text from sync code, for a search; see `run_async`."""
        rows: NDArray[np.float32] = run_async(_FOR_A_SEARCH.call(self, [text]))
        row: NDArray[np.float32] = rows[0]
        return row

    def as_stage(self) -> Stage:
        """Stage of a document processor with this embedder's batches, limits and retries."""
        return Stage(self, **self._options())

    def as_processor(self, **options: Any) -> AsyncBatchProcessor[str, NDArray[np.float32]]:
        """Processor of texts with the same batches, limits and retries; `options` replace them."""
        return AsyncBatchProcessor(self, batched=True, **self._options() | options)

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self._max_batch,
            "max_concurrency": self._max_concurrency,
            "rate_limiter": self.limiters,
            "retry": self._retry,
            "weight": self._weigh,
            "max_batch_weight": self._max_batch_tokens,
            "resources": self.open,
        }

    async def _embedded(self, texts: Sequence[str], client: Opened) -> NDArray[np.float32]:
        """Send a request, update limits and costs from the reply, and check its vectors."""
        try:
            reply = await self._reply(texts, client)
        except Exception as error:
            self._update_limiters(headers_of(error))
            raise
        self._update_limiters(reply.headers)
        tokens = reply.tokens
        self._spending.answered(sum(map(self._weigh.count, texts)) if tokens is None else tokens)
        return self._dimension.rows_of(reply, len(texts))

    async def _reply(self, texts: Sequence[str], client: Opened) -> Reply:
        body, dimension = {**self._body, "input": list(texts)}, self._dimension.confirmed

        async def send(encoding: Mapping[str, str]) -> Reply:
            return await self._service.send(client.client, {**body, **encoding}, dimension)

        try:
            async with asyncio.timeout(self._timeout) as deadline:
                return await self._service.encoding.ask(send, client, len(texts))
        except TimeoutError:
            if not deadline.expired():
                raise  # the client's own
            raise AttemptTimeout(f"the service took longer than {self._timeout:g} s") from None

    def _update_limiters(self, headers: Mapping[str, str]) -> None:
        self._requests.update(headers)
        self._tokens.update(headers)

    def __repr__(self) -> str:
        spending = self._spending
        price = f", {spending.cost:.4f} spent" if spending.cost else ""
        counts = f"{spending.calls:,} calls, {spending.tokens:,} tokens"
        return f"<OpenAIEmbedder {self._name!r}: {counts}{price}>"
