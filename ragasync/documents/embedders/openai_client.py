"""How an embedding service is asked: over HTTP, or through a client that is there already."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import blake2b
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from ragasync.arguments import is_async
from ragasync.documents.embedders.openai_errors import headers_to_keep
from ragasync.documents.embedders.openai_http import (
    OPENAI,
    HttpService,
    Opened,
    VectorEncoding,
    address_of,
    checked_headers,
    host_of,
)
from ragasync.documents.embedders.openai_responses import Reply, reply_of

_ARGUMENTS: Final = ("model", "dimensions", "input")
"""What has an argument of its own, and no place in `extra_body`."""

_CHANGES_NO_VECTOR: Final = frozenset({"encoding_format", "user"})


class EmbeddingService(Protocol):
    """Something to ask for embeddings, through a client that is opened for a run."""

    @property
    def host(self) -> str:
        """Where it is, without what is secret; nothing where that is not known."""

    def opened(self, for_one_call: bool = False) -> AbstractAsyncContextManager[Opened]:
        """Return an async context manager that gives the client."""

    async def ask(
        self,
        opened: Opened,
        body: Mapping[str, Any],
        dimension: int | None,
        sending: Callable[[], None],
    ) -> Reply:
        """Request the vectors of `body["input"]`; see `HttpService.ask`."""


class ClientService:
    """
    A service behind a client with `embeddings.create(model=, input=)`, such as an AsyncOpenAI.

    An SDK's own retries are switched off, because they would multiply with ours and know no
    limiter; its headers are read where it shows them. A sync client is called on a thread.

    Args:
        client: the caller's, who also closes it.
        extra: further fields of a request's body, which an SDK takes as `extra_body=`.
    """

    def __init__(self, client: Any, extra: Mapping[str, object]) -> None:
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
        self._encoding = VectorEncoding()
        self.host = ""
        if self._has_sdk_options:
            self.host = host_of(urlsplit(str(getattr(client, "base_url", ""))))

    @asynccontextmanager
    async def opened(self, for_one_call: bool = False) -> AsyncIterator[Opened]:
        """Give the client as it is."""
        yield Opened(self._client, for_one_call)

    async def ask(
        self,
        opened: Opened,
        body: Mapping[str, Any],
        dimension: int | None,  # noqa: ARG002  # the client reads its replies as a whole
        sending: Callable[[], None],
    ) -> Reply:
        """
        Request the vectors of `body["input"]`.

        Raises:
            BrokenReply: what came is not what was asked for.
            Exception: whatever the client raises.
        """
        asked = {**body, **self._extra}
        if not self._has_sdk_options or "encoding_format" in self._extra.get("extra_body", ()):
            return await self._send(opened.client, asked, sending)

        async def send(in_base64: bool) -> Reply:
            encoding = {} if in_base64 else {"encoding_format": "float"}  # the SDK's own is base64
            return await self._send(opened.client, {**asked, **encoding}, sending)

        return await self._encoding.ask(send, opened, len(body["input"]))

    async def _send(
        self, client: Any, asked: Mapping[str, Any], sending: Callable[[], None]
    ) -> Reply:
        """Call the client once."""
        sending()
        embeddings = client.embeddings
        shows_headers = self._has_sdk_options and hasattr(embeddings, "with_raw_response")
        create = (embeddings.with_raw_response if shows_headers else embeddings).create
        made = create(**asked) if is_async(create) else await asyncio.to_thread(create, **asked)
        answer = await made if hasattr(made, "__await__") else made
        if not shows_headers:
            return reply_of(answer, {})
        return reply_of(answer.parse(), headers_to_keep(answer.headers.items()))


def key_to_send(given: str | None, base_url: str, headers: Mapping[str, str]) -> str | None:
    """
    Return the key to show: the given one, or for OpenAI itself that of OPENAI_API_KEY.

    To another host that key is not sent unless it is given: whose it is nobody knows.

    Raises:
        TypeError: `base_url` is no text.
        ValueError: OpenAI is to be asked without a key, a key has characters that none has, or
            `base_url` is no address.
    """
    is_openai = address_of(base_url).hostname == urlsplit(OPENAI).hostname
    if given is None and "authorization" in headers:
        return None
    key = (given or (os.environ.get("OPENAI_API_KEY", "") if is_openai else "")).strip()
    if is_openai and not key:
        raise ValueError("expected a key: pass api_key=, or set OPENAI_API_KEY before the start")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key has characters that no header can hold: is it copied whole?")
    return key or None


def service_of(
    client: Any,
    base_url: str,
    api_key: str | None,
    headers: Mapping[str, str] | None,
    extra: Mapping[str, object],
) -> EmbeddingService:
    """
    Return the service behind a client, or else at an address.

    Raises:
        ValueError: `headers` were passed with a client, which has its own.
    """
    if client is None:
        own = checked_headers(headers or {})
        return HttpService(base_url, key_to_send(api_key, base_url, own), own, extra)
    if headers:
        raise ValueError("headers= is for use without client=: set them on the client itself")
    return ClientService(client, extra)


def checked_extra(extra: Mapping[str, object] | None) -> dict[str, object]:
    """
    Return further fields of a request's body, as plain data.

    Raises:
        TypeError: they are not a mapping of JSON values by name.
        ValueError: one of them has an argument of its own, or is not finite.
    """
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
    """
    Return what tells these vectors from others.

    That is the model, the dimension asked for, the host, and a digest of what else a request says,
    such as a task.
    """
    shortened = "" if dimensions is None else f"-{dimensions}"
    elsewhere = f"@{host}" if host not in ("", urlsplit(OPENAI).hostname) else ""
    said = {name: value for name, value in extra.items() if name not in _CHANGES_NO_VECTOR}
    written = json.dumps(said, sort_keys=True).encode()
    digest = f"#{blake2b(written, digest_size=4).hexdigest()}" if said else ""
    return f"openai:{model}{shortened}{elsewhere}{digest}"
