"""How an embedding service is asked: over HTTP, or through a client that is there already."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Protocol
from urllib.parse import urlsplit

from ragasync.calling.calls import is_async
from ragasync.documents.embedding.embedding_reply import Reply, reply_of
from ragasync.documents.embedding.service_errors import BrokenReply, refusal
from ragasync.errors import MissingExtra

OPENAI = "https://api.openai.com/v1"
"""Where the service is that the others are compatible with."""


class EmbeddingService(Protocol):
    """Something to ask for embeddings, through a client that is opened for a run."""

    @property
    def host(self) -> str:
        """Where it is, without what is secret; nothing where that is not known."""

    def opened(self) -> Any:
        """Return an async context manager that gives the client."""

    async def ask(self, client: Any, body: Mapping[str, object]) -> Reply:
        """Ask once."""


class HttpService:
    """
    An OpenAI-compatible service at an address, asked by httpx.

    It never tries again by itself, and waits without end: both are the caller's.

    Args:
        base_url: the address before `/embeddings`.
        api_key: what is sent as a bearer token; None for nothing.

    Raises:
        ValueError: `base_url` is no address of a web service.
        MissingExtra: httpx is not installed.
    """

    def __init__(self, base_url: str, api_key: str | None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"base_url must be an address such as {OPENAI!r}, got one of scheme "
                f"{parts.scheme!r} and host {parts.hostname!r}"
            )
        if find_spec("httpx") is None:
            raise MissingExtra("OpenAIEmbedder without client=", "httpx", "openai")
        self._url = f"{base_url.rstrip('/')}/embeddings"
        port = f":{parts.port}" if parts.port else ""
        self.host = f"{parts.hostname}{port}"
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        """Open a client on this loop, for as many calls at once as its user makes."""
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(headers=self._headers, limits=limits, timeout=None) as client:
            yield client

    async def ask(self, client: Any, body: Mapping[str, object]) -> Reply:
        """
        Ask once.

        Raises:
            ServiceRefusal: the service answered with another status than of success.
            BrokenReply: what it answered is no JSON, or not what was asked for.
        """
        # A lone surrogate, which UTF-8 cannot say, becomes a question mark.
        asked = {**body, "encoding_format": "base64"}  # a tenth of the time to read
        content = json.dumps(asked, ensure_ascii=False).encode(errors="replace")
        response = await client.post(self._url, content=content)
        headers = {name.lower(): value for name, value in response.headers.items()}
        if not response.is_success:
            raise refusal(self.host, response.status_code, response.content, headers)
        try:
            answer = json.loads(response.content)
        except ValueError as error:
            size = len(response.content)
            raise BrokenReply(f"expected JSON from {self.host}, got {size:,} bytes") from error
        return reply_of(answer, headers)


class ClientService:
    """
    A service behind a client with `embeddings.create(model=, input=)`, such as an AsyncOpenAI.

    An SDK's own retries are switched off, because they would multiply with ours and know no
    limiter; its headers are read where it shows them. A sync client is called on a thread.

    Args:
        client: the caller's, who also closes it.
    """

    def __init__(self, client: Any) -> None:
        self._has_sdk_options = isinstance(getattr(client, "max_retries", None), int)
        if self._has_sdk_options:
            client = client.with_options(max_retries=0)
        if not callable(getattr(getattr(client, "embeddings", None), "create", None)):
            raise TypeError(
                f"client must have embeddings.create(model=, input=), as an AsyncOpenAI has, "
                f"got a {type(client).__name__}"
            )
        self._client = client
        base_url = str(getattr(client, "base_url", "")) if self._has_sdk_options else ""
        parts = urlsplit(base_url)
        self.host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        """Give the client as it is."""
        yield self._client

    async def ask(self, client: Any, body: Mapping[str, object]) -> Reply:
        """
        Ask once.

        Raises:
            BrokenReply: what came is not what was asked for.
            Exception: whatever the client raises.
        """
        embeddings = client.embeddings
        shows_headers = self._has_sdk_options and hasattr(embeddings, "with_raw_response")
        create = (embeddings.with_raw_response if shows_headers else embeddings).create
        made = create(**body) if is_async(create) else await asyncio.to_thread(create, **body)
        answer = await made if hasattr(made, "__await__") else made
        if not shows_headers:
            return reply_of(answer, {})
        headers = {str(name).lower(): str(value) for name, value in answer.headers.items()}
        return reply_of(answer.parse(), headers)


def key_to_send(given: str | None, base_url: str) -> str | None:
    """
    Return the key to show: the given one, or for OpenAI itself that of OPENAI_API_KEY.

    To another host that key is not sent unless it is given: whose it is nobody knows.

    Raises:
        ValueError: OpenAI is to be asked without a key, or a key has characters that none has.
    """
    is_openai = urlsplit(base_url).hostname == urlsplit(OPENAI).hostname
    key = (given or (os.environ.get("OPENAI_API_KEY", "") if is_openai else "")).strip()
    if is_openai and not key:
        raise ValueError("expected a key: pass api_key=, or set OPENAI_API_KEY before the start")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key has characters that no header can hold: is it copied whole?")
    return key or None


def service_of(client: Any, base_url: str, api_key: str | None) -> EmbeddingService:
    """Return the service behind a client, or else at an address."""
    if client is not None:
        return ClientService(client)
    return HttpService(base_url, key_to_send(api_key, base_url))


def name_of_vectors(model: str, dimensions: int | None, host: str) -> str:
    """Return what tells these vectors from others: the model, the dimension asked for, the host."""
    shortened = "" if dimensions is None else f"-{dimensions}"
    elsewhere = f"@{host}" if host not in ("", urlsplit(OPENAI).hostname) else ""
    return f"openai:{model}{shortened}{elsewhere}"
