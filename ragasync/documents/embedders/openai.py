"""OpenAIEmbedder: vectors from any service that speaks as OpenAI's does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragasync._bridge.run_async import run_async
from ragasync._limits.limiter import RateLimiter
from ragasync._retries.classify import FATAL, default_retry
from ragasync._retries.http import headers_of
from ragasync._retries.policy import AsyncRetry, Verdict
from ragasync.arguments import check_count, check_positive
from ragasync.batch import AsyncBatchProcessor
from ragasync.documents.embedders.dimension import Dimension
from ragasync.documents.embedders.hashing import check_texts
from ragasync.documents.embedders.openai_client import (
    checked_extra,
    name_of_vectors,
    service_of,
)
from ragasync.documents.embedders.openai_errors import RedirectRefused, WrongDimension
from ragasync.documents.embedders.openai_http import OPENAI, Opened
from ragasync.documents.embedders.openai_responses import Reply
from ragasync.documents.embedders.ratelimit_headers import HeaderRateLimiter
from ragasync.documents.spending import Spending
from ragasync.documents.stage import Stage
from ragasync.documents.tokenizers import token_budget
from ragasync.errors import AttemptTimeout

_FOR_A_SEARCH = AsyncRetry(2, 0.5, max_elapsed=30.0)


def unless_nothing_helps(error: Exception) -> Verdict:
    """Return FATAL for a wrong dimension or a refused redirect; else the default verdict."""
    return FATAL if isinstance(error, WrongDimension | RedirectRefused) else default_retry(error)


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
        timeout: float = 60.0,
        max_concurrency: int = 8,
        retry: AsyncRetry | None = None,
        name: str | None = None,
    ) -> None:
        check_count("max_batch", max_batch, at_least=1)
        extra = checked_extra(extra_body)
        self._service = service_of(client, base_url, api_key, headers, extra)
        self._dimension = Dimension(dimensions)
        self._body = {"model": model} | ({} if dimensions is None else {"dimensions": dimensions})
        self._name = name or name_of_vectors(model, dimensions, self._service.host, extra)
        self._weigh = token_budget(count_tokens, max_tokens, max_batch_tokens)
        self._max_batch, self._max_batch_tokens = max_batch, max_batch_tokens
        self._requests = HeaderRateLimiter("requests", requests_per_minute)
        self._tokens = HeaderRateLimiter("tokens", tokens_per_minute, self._weigh.count)
        self._timeout = check_positive("timeout", timeout)
        self._max_concurrency = max_concurrency
        self._retry = retry or AsyncRetry(8, 0.5, retry_on=unless_nothing_helps)
        self._spending = Spending(price_per_million_tokens)

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
        """How many requests were sent."""
        return self._spending.calls

    @property
    def tokens(self) -> int:
        """What they were counted as: by the service, or by us where it does not say."""
        return self._spending.tokens

    @property
    def spent(self) -> float:
        """The price of these tokens."""
        return self._spending.cost

    @property
    def limiters(self) -> tuple[RateLimiter, RateLimiter]:
        """The limiters of requests and of tokens, which all runs share."""
        return self._requests.limiter, self._tokens.limiter

    def open(self) -> AbstractAsyncContextManager[Opened]:
        """Return what opens a client on the running loop; for `resources=`, or for many calls."""
        return self._service.opened()

    async def __call__(
        self, texts: Sequence[str], client: Opened | None = None, /
    ) -> NDArray[np.float32]:
        """
        Return the vectors of the texts, by one call.

        Args:
            texts: the texts, none of them empty; lone surrogates count as question marks.
            client: what `open` gave; None opens one for this call.

        Returns:
            A float32 array of shape `(len(texts), dimension)`.

        Raises:
            TypeError: `texts` is one text, or holds something else.
            ItemTooLargeError: a text is too long.
            ServiceRefusal: the service answered with an error.
            ResultCountError: it gave more or fewer vectors than texts.
            WrongVector: it gave one of another dimension, or one that is not finite.
            AttemptTimeout: it took longer than `timeout`.
            BrokenReply: its answer could not be read, or is larger than such vectors can be.
            RedirectRefused: it redirects to another host.
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
        """Return the vector of one text, from sync code; see `run_async`. A search calls it."""
        rows: NDArray[np.float32] = run_async(_FOR_A_SEARCH.call(self, [text]))
        row: NDArray[np.float32] = rows[0]
        return row

    def as_stage(self) -> Stage:
        """Return how a document processor calls it."""
        return Stage(self, **self._way())

    def as_processor(self, **options: Any) -> AsyncBatchProcessor[str, NDArray[np.float32]]:
        """Return a processor of texts that calls it likewise, but for these options."""
        return AsyncBatchProcessor(self, batched=True, **self._way() | options)

    def _way(self) -> dict[str, Any]:
        """Return how many texts and calls may go at once, within which limits, and how often."""
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
        """Ask, heed what the answer says of limits and costs, and check its vectors."""
        try:
            reply = await self._reply(texts, client)
        except Exception as error:
            self._hear(headers_of(error))
            raise
        self._hear(reply.headers)
        tokens = reply.tokens
        self._spending.answered(sum(map(self._weigh.count, texts)) if tokens is None else tokens)
        return self._dimension.rows_of(reply, len(texts))

    async def _reply(self, texts: Sequence[str], client: Opened) -> Reply:
        """Ask once, with a limit of time."""
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                return await self._service.ask(
                    client,
                    {**self._body, "input": list(texts)},
                    self._dimension.confirmed,
                    self._spending.call,
                )
        except TimeoutError:
            if not deadline.expired():
                raise  # the client's own
            raise AttemptTimeout(f"the service took longer than {self._timeout:g} s") from None

    def _hear(self, headers: Mapping[str, str]) -> None:
        """Let the limiters know what an answer's headers say."""
        self._requests.hear(headers)
        self._tokens.hear(headers)

    def __repr__(self) -> str:
        spending = self._spending
        price = f", {spending.cost:.4f} spent" if spending.cost else ""
        counts = f"{spending.calls:,} calls, {spending.tokens:,} tokens"
        return f"<OpenAIEmbedder {self._name!r}: {counts}{price}>"
