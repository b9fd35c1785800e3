"""
HttpService: an OpenAI-compatible embedding service over HTTP, its replies, and the errors in them.

    RagasyncError
    ├── ServiceRefusal                        the service replied with an error status
    ├── BrokenReply                           the reply is cut short, or has no embeddings
    ├── WrongVector (ValueError)              a vector of another dimension, or not finite
    ├── WrongDimension (NotImplementedError)  the service ignores `dimensions=`
    └── RedirectRefused (NotImplementedError) the service redirects to another host
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.util import find_spec
from itertools import islice
from types import NoneType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

import numpy as np
from numpy.typing import NDArray

from ragasync._retries.http import http_status
from ragasync.arguments import check_count
from ragasync.errors import MissingExtra, RagasyncError, ResultCountError
from ragasync.foreign_errors import attribute, guarded, text_of
from ragasync.redact import MASK, redact

if TYPE_CHECKING:
    from httpx import AsyncClient, Response


_LONGEST = 300
_LONGEST_HEADER = 200
_MOST_HEADERS = 256
_KEPT_HEADERS = ("retry-after", "x-should-retry", "x-ratelimit", "x-request-id")


class ServiceRefusal(RagasyncError):
    """
    A service replied with an error.

    Attributes:
        status_code: the HTTP status.
        code: the service's error code, such as "insufficient_quota".
        type: the service's type of error.
        headers: those about retries and rate limits, by lower-case name.
    """

    def __init__(
        self,
        where: str,
        status: int,
        said: str,
        headers: Mapping[str, str],
        *,
        code: str | None = None,
        type: str | None = None,  # noqa: A002  # as the service calls it
    ) -> None:
        phrase = f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""
        message = f"{where} answered {status}{phrase}"
        super().__init__(redact(f"{message}: {said}" if said else message))
        self.status_code = status
        self.code = code
        self.type = type
        self.headers = headers_to_keep(headers.items())


class BrokenReply(RagasyncError):
    """A service's reply could not be read; the next one may be complete."""


class WrongVector(RagasyncError, ValueError):
    """A service returned a vector of another dimension, or one that is not finite."""


class WrongDimension(RagasyncError, NotImplementedError):
    """A service ignores `dimensions=`: every later vector would have the wrong one too."""


class RedirectRefused(RagasyncError, NotImplementedError):
    """A service redirects to another host, or in a circle: every later call would fail too."""


def headers_to_keep(headers: Iterable[tuple[object, object]]) -> dict[str, str]:
    """Return the headers about retries and rate limits, each cut, by lower-case name."""
    named = ((str(name).lower(), value) for name, value in islice(headers, _MOST_HEADERS))
    return {
        name: str(value)[:_LONGEST_HEADER]
        for name, value in named
        if name.startswith(_KEPT_HEADERS)
    }


def refusal(
    where: str,
    status: int,
    body: bytes | bytearray,
    headers: Mapping[str, str],
    without_secrets: Callable[[str], str] = str,
) -> ServiceRefusal:
    """
    Make the error of a reply from a host, whose body is JSON like OpenAI's, or any text.

    `without_secrets` masks the key in a text, which the service may have quoted.
    """
    text = body[: 64 * _LONGEST].decode(errors="replace")
    error: object = None
    try:
        answer = json.loads(text)
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
    except (ValueError, RecursionError):
        pass
    code = kind = None
    if isinstance(error, dict):
        code, kind = _word(error.get("code")), _word(error.get("type"))
        text = str(error.get("message") or error.get("detail") or text)
    elif isinstance(error, str):
        text = error
    said = short_text(without_secrets(text))
    code, kind = (word and without_secrets(word) for word in (code, kind))
    return ServiceRefusal(where, status, said, headers, code=code, type=kind)


def short_text(text: str) -> str:
    """Return the beginning of a text on one line; masked first, as a cut secret is not found."""
    line = " ".join(redact(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _word(value: object) -> str | None:
    """Return a str of the service; a number would pass for a status."""
    return value[:_LONGEST] if isinstance(value, str) else None


_MOST_TOKENS: Final = 2**53
"""The maximum count of tokens that is plausible; a float holds every integer up to it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed response; indices and tokens are None where the service does not give them."""

    vectors: Sequence[object]  # one per text in any order: lists of numbers, or float32 in base64
    indices: Sequence[object]  # the position of each vector's text
    tokens: int | None
    headers: Mapping[str, str]  # by lower-case name


def reply_of(
    answer: object, headers: Mapping[str, str], without_secrets: Callable[[str], str] = str
) -> Reply:
    """Make a Reply of parsed JSON or a client's object; BrokenReply without embeddings."""
    data = _part(answer, "data")
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        got = short_text(without_secrets(text_of(guarded(repr, answer))))
        raise BrokenReply(f"expected a list of embeddings under 'data', got {got}")
    usage = _part(answer, "usage")
    tokens = _part(usage, "total_tokens")
    return Reply(
        [_part(entry, "embedding") for entry in data],
        [_part(entry, "index") for entry in data],
        tokens if type(tokens) is int and 0 <= tokens <= _MOST_TOKENS else None,
        headers,
    )


def vectors_of(reply: Reply, expected: int) -> list[NDArray[np.float32] | None]:
    """Return one vector per text in order, None for an invalid one; else ResultCountError."""
    vectors, indices = reply.vectors, reply.indices
    if len(vectors) != expected:
        raise ResultCountError(
            f"expected a vector for each of {expected} texts, got {len(vectors)} from the service"
        )
    read = [_vector(vector) for vector in vectors]
    if all(index is None for index in indices):
        return read
    are_indices = all(type(index) is int for index in indices)
    placed = dict(zip(indices, read, strict=True)) if are_indices else {}
    if placed.keys() != set(range(expected)):
        raise ResultCountError(
            f"expected a vector for each of {expected} texts, got {len(placed)} from the service, "
            f"by the index of each: {list(indices)!r:.200}"
        )
    return [placed[index] for index in range(expected)]


def _fault(vector: NDArray[np.float32] | None, dimension: int) -> str:
    if vector is None:
        return "not a list of numbers"
    if len(vector) != dimension:
        return f"of {len(vector)} dimensions"
    return "" if np.isfinite(vector).all() else "not finite"


def _vector(given: object) -> NDArray[np.float32] | None:
    """Convert a vector of a response; None if it is invalid."""
    try:
        if isinstance(given, str):
            row = np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4")
        elif not _are_numbers(given):
            return None
        else:
            with np.errstate(over="ignore"):
                row = np.asarray(given, dtype=np.float32)
    except Exception:  # whatever the object of a client raises
        return None
    return row if row.ndim == 1 and len(row) else None


def _are_numbers(given: object) -> bool:
    """Return whether a list or array has numbers only; true and "1.0" are none."""
    if not isinstance(given, list | tuple):
        return np.asarray(given).dtype.kind in "fiu"
    kinds = set(map(type, given)) - {float, int, NoneType}  # null becomes NaN
    return all(issubclass(kind, np.floating | np.integer) for kind in kinds)


def _part(whole: object, name: str) -> object:
    """Return an item of a dict, or an attribute of a client's object; None if missing."""
    if isinstance(whole, Mapping):
        return whole.get(name)
    # A text has a method called index.
    return None if type(whole).__module__ == "builtins" else attribute(whole, name)


class Dimension:
    """
    The dimension of an embedder's vectors, and the conversion of responses to rows of it.

    Args:
        asked: the requested dimension; None for the model's own.

    Attributes:
        known: the requested dimension, or that of most vectors of the first response; else None.
    """

    def __init__(self, asked: int | None) -> None:
        if asked is not None:
            check_count("dimensions", asked, at_least=1)
        self._asked = asked
        self._confirmed = False
        self.known = asked

    @property
    def confirmed(self) -> int | None:
        """Dimension of the first response; None before it."""
        return self.known if self._confirmed else None

    def rows_of(self, reply: Reply, expected: int) -> NDArray[np.float32]:
        """Return the vectors of a response as rows in the order of the texts, or raise."""
        vectors = vectors_of(reply, expected)
        lengths = Counter(len(vector) for vector in vectors if vector is not None)
        if not lengths:
            raise WrongVector(f"expected vectors for {expected} texts, got none that can be read")
        [(usual, _)] = lengths.most_common(1)
        if self._asked is not None and not self._confirmed and usual != self._asked:
            raise WrongDimension(
                f"expected vectors of dimensions={self._asked}, got {usual} from the service: "
                "leave dimensions out, or name a model that can shorten its vectors"
            )
        known = self.known or usual
        faults = {place: _fault(vector, known) for place, vector in enumerate(vectors)}
        if wrong := [place for place, fault in faults.items() if fault]:
            more = f", and {len(wrong) - 1} more are wrong" if len(wrong) > 1 else ""
            raise WrongVector(
                f"expected a vector of {known} finite numbers for each of {expected} texts: "
                f"the one for text {wrong[0]} is {faults[wrong[0]]}{more}"
            )
        self.known, self._confirmed = known, True
        return np.array(vectors, dtype=np.float32).reshape(expected, known)


OPENAI: Final = "https://api.openai.com/v1"
"""The base URL of the service that the others are compatible with."""

_LONGEST_ERROR: Final = 65_536
"""Bytes of an error's body that are read, and bytes allowed in addition to a reply's vectors."""

_BYTES_PER_NUMBER: Final = 48
"""Size of a number as indented JSON, with its sign, exponent and all digits of a double."""

_BYTES_PER_VECTOR: Final = 8192 * _BYTES_PER_NUMBER
"""Size of a vector of unknown dimension; enough for 73,728 numbers in base64."""

_MOST_REDIRECTS: Final = 5
_SHORTEST_SECRET: Final = 8
_REPEATS_THE_POST: Final = frozenset({301, 302, 307, 308})
_PERMANENT: Final = frozenset({301, 308})
_REFUSES_A_FIELD: Final = frozenset({400, 422})
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A client that is open on an event loop."""

    client: Any  # an `httpx.AsyncClient`, or the user's
    for_one_call: bool = False
    # Held while a request is repeated without base64.
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class VectorEncoding:
    """
    Whether a service sends vectors in base64, which are read ten times as fast as numbers.

    A service that does not know `encoding_format` refuses the whole request (400 or 422). Such a
    request is repeated for numbers. If that succeeds, base64 is never requested again; once base64
    has succeeded, a refusal is about the texts. If both are refused, the cause may be either:
    numbers are requested until a request succeeds, so that a wrong model costs one request more,
    not twice as many. A first refusal of several texts that does not mention the encoding is left
    to the processor, which splits the batch: a bad text is more likely.
    """

    base64: Mapping[str, str]  # the fields of a request for base64
    numbers: Mapping[str, str]  # the fields of a request for numbers
    is_fixed: bool  # whether the user has chosen, so that neither fields are sent
    _has_base64: bool | None = field(default=None, init=False)
    _was_refused: bool = field(default=False, init=False)
    _is_in_doubt: bool = field(default=False, init=False)

    async def ask(
        self, send: Callable[[Mapping[str, str]], Awaitable[Reply]], opened: Opened, texts: int
    ) -> Reply:
        """
        Send a request of some texts in the encoding that the service accepts, or find out which.

        Concurrent refusals wait for the outcome of one repetition.
        """
        if self.is_fixed:
            return await send({})
        if self._has_base64 is False or self._is_in_doubt:
            reply = await send(self.numbers)
            self._is_in_doubt = False
            return reply
        try:
            reply = await send(self.base64)
        except Exception as error:
            if not self._may_be_about_encoding(error, opened.for_one_call or texts == 1):
                raise
            refused = error
        else:
            self._has_base64 = True if self._has_base64 is None else self._has_base64
            return reply
        async with opened.probing:
            if self._has_base64 or self._is_in_doubt:
                raise refused
            try:
                reply = await send(self.numbers)
            except Exception as error:
                self._is_in_doubt = http_status(error) in _REFUSES_A_FIELD
                raise
            self._has_base64 = False
            return reply

    def _may_be_about_encoding(self, error: Exception, is_alone: bool) -> bool:
        """Return whether to repeat a refused request for numbers, and note the refusal."""
        if self._has_base64 or http_status(error) not in _REFUSES_A_FIELD:
            return False
        before, self._was_refused = self._was_refused, True
        said = text_of(error).lower()
        return before or is_alone or "base64" in said or "encoding_format" in said


class HttpService:
    """
    An OpenAI-compatible service at an address, called through httpx.

    Retries and timeouts are up to its caller. A reply is read up to the size that its request can
    need, before and after decompression. Redirects are followed within the host: another one would
    get the key and the texts.

    Args:
        base_url: the URL, with or without `/embeddings`; a query is kept.
        api_key: sent as a bearer token; None sends none.
        headers: further headers, by lower-case name; they replace ours.
        extra: further fields of a request's body.
        sending: called before each request.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        headers: Mapping[str, str],
        extra: Mapping[str, object],
        sending: Callable[[], None],
    ) -> None:
        parts = address_of(base_url)
        if find_spec("httpx") is None:
            raise MissingExtra("OpenAIEmbedder without client=", "httpx", "openai")
        path = parts.path.rstrip("/").removesuffix("/embeddings")
        self._url = parts._replace(path=f"{path}/embeddings", fragment="").geturl()
        self.host = host_of(parts)
        self._headers = {"content-type": "application/json", "accept-encoding": "gzip"}
        if api_key is not None:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._headers |= headers
        secrets = set(_secrets_of(api_key, parts.password, *headers.values()))
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._extra, self._sending = dict(extra), sending
        self.encoding = VectorEncoding(
            {"encoding_format": "base64"}, {}, is_fixed="encoding_format" in extra
        )

    @asynccontextmanager
    async def opened(self, for_one_call: bool = False) -> AsyncIterator[Opened]:
        """Open a client on this loop, for any number of concurrent calls."""
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(headers=self._headers, limits=limits, timeout=None) as client:
            yield Opened(client, for_one_call)

    async def send(
        self, client: AsyncClient, body: Mapping[str, Any], dimension: int | None
    ) -> Reply:
        """
        Request the vectors of `body["input"]`; a known `dimension` bounds the reply.

        Errors are ServiceRefusal, RedirectRefused and BrokenReply.
        """
        asked = {**body, **self._extra}
        # A lone surrogate, which UTF-8 cannot encode, becomes a question mark.
        content = json.dumps(asked, ensure_ascii=False).encode(errors="replace")
        expected = len(body["input"])
        longest = _most_bytes(expected, dimension, len(content))
        url = self._url
        for _ in range(_MOST_REDIRECTS + 1):
            self._sending()
            async with client.stream("POST", url, content=content) as response:
                kept = headers_to_keep(response.headers.items())
                headers = {name: self._without_secrets(text) for name, text in kept.items()}
                status = response.status_code
                if response.is_success:
                    raw = await _body_of(response, longest)
                    if len(raw) > longest:
                        raise BrokenReply(
                            f"expected at most {longest:,} bytes from {self.host} for the vectors "
                            f"of {expected} texts, got more: check base_url"
                        )
                    return self._reply_of(raw, headers, expected, len(content))
                raw = await _body_of(response, _LONGEST_ERROR)
            if status not in _REPEATS_THE_POST or "location" not in response.headers:
                raise refusal(self.host, status, raw, headers, self._without_secrets)
            url = self._redirected(response, url)
            if status in _PERMANENT:
                self._url = url
        raise RedirectRefused(
            f"{self.host} redirected {_MOST_REDIRECTS + 1} times in a row: pass the final address "
            "as base_url="
        )

    def _reply_of(
        self, raw: bytearray, headers: dict[str, str], expected: int, asked: int
    ) -> Reply:
        """Parse a body of JSON."""
        if not _is_plausible(raw, expected, asked):
            raise BrokenReply(
                f"expected {expected} embeddings from {self.host}, got {len(raw):,} bytes with "
                "more lists, objects or texts than these can have: check base_url"
            )
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError) as problem:
            size = len(raw)
            raise BrokenReply(f"expected JSON from {self.host}, got {size:,} bytes") from problem
        error = answer.get("error") if isinstance(answer, dict) else None
        status = error.get("code") if isinstance(error, dict) else None
        if type(status) is int and 400 <= status <= 599:  # some gateways always answer 200
            raise refusal(self.host, status, raw, headers, self._without_secrets)
        return reply_of(answer, headers, self._without_secrets)

    def _redirected(self, response: Response, url: str) -> str:
        """Return the URL of a redirect, if it is on the same host."""
        import httpx

        here = httpx.URL(url)
        try:
            there = here.join(response.headers["location"][:4096])
        except (httpx.InvalidURL, ValueError):
            raise RedirectRefused(
                f"{self.host} redirects to an address that cannot be read: check base_url"
            ) from None
        same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
        # The same host may also ask for an encrypted connection.
        ports = (here.port, there.port)
        upgrade = (here.scheme, there.scheme, *ports) == ("http", "https", None, None)
        if not (same or (upgrade and here.host == there.host)):
            where = self._without_secrets(f"{there.scheme}://{there.netloc.decode()}")
            raise RedirectRefused(
                f"{self.host} redirects to {where:.200}, which would get the key and the texts: "
                "if you trust that address, pass it as base_url="
            )
        return str(there.copy_with(userinfo=here.userinfo))

    def _without_secrets(self, text: str) -> str:
        """Mask the key and the headers of this service in a text that may quote them."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def host_of(parts: SplitResult) -> str:
    """Return the host and port of a URL; empty without a host."""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}" if parts.hostname else ""


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by lower-case name, or raise; no value is quoted, as it may be a key."""
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a dict of texts, got a {type(headers).__name__}")
    checked = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"headers must be a dict of texts, got a {type(value).__name__} for {name!r:.100}"
            )
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"headers has a name that cannot be sent: {name!r:.100}")
        if name.lower() in _FRAMING:
            raise ValueError(f"headers must leave {name!r} to the HTTP client: leave it out")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(
                f"the header {name!r} has characters that no header can hold: is it copied whole?"
            )
        checked[name.lower()] = value.strip()
    return checked


def address_of(base_url: str) -> SplitResult:
    """Parse a base URL; an error does not quote it, as it may have a password."""
    expected = f"base_url must be an address such as {OPENAI!r}"
    if not isinstance(base_url, str):
        raise TypeError(f"{expected}, got {base_url!r:.200}")
    try:
        parts = urlsplit(base_url.strip())
        _ = parts.port
    except ValueError:
        raise ValueError(f"{expected}, got one whose host or port cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{expected}, got one of scheme {parts.scheme!r} and host {parts.hostname!r}"
        )
    return parts


def _secrets_of(*values: str | None) -> Iterator[str]:
    """Yield the values that an error must not quote, and their words."""
    for value in values:
        for word in {value, *value.split()} if value else ():
            if len(word) >= _SHORTEST_SECRET:
                yield word


async def _body_of(response: Response, longest: int) -> bytearray:
    """
    Read a decompressed body up to `longest` bytes; of a longer one, some bytes more.

    The client's own decompression has no bound: a megabyte may hold a gigabyte.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in _COMPRESSED and encoding not in ("", "identity"):
        raise BrokenReply(f"expected a plain or gzip reply, got content-encoding {encoding!r:.100}")
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS) if encoding in _COMPRESSED else None
    body, received = bytearray(), 0
    async for piece in response.aiter_raw():
        received += len(piece)
        if unpacker is not None:
            try:
                piece = unpacker.decompress(piece, longest + 1 - len(body))
            except zlib.error as error:
                raise BrokenReply("expected a gzip reply, got an unreadable one") from error
        body += piece
        if len(body) > longest or received > 2 * longest:
            break
    return body


def _most_bytes(texts: int, dimension: int | None, asked: int) -> int:
    """Return the maximum size of a reply: its vectors, and each text once more, escaped."""
    vector = _BYTES_PER_VECTOR if dimension is None else dimension * _BYTES_PER_NUMBER
    return _LONGEST_ERROR + 2 * asked + texts * (1024 + vector)


def _is_plausible(raw: bytearray, texts: int, asked: int) -> bool:
    """
    Return whether a body has few enough lists, objects and strings for embeddings of some texts.

    Each takes about 60 bytes once parsed, but two or three in the body. The texts, which a service
    may repeat, can have as many as the request has bytes.
    """
    most = 4096 + 64 * texts + 2 * asked
    return raw.count(b"[") + raw.count(b"{") <= most and raw.count(b'"') <= most
