"""Redaction of a text: replaces secrets by `***`, rule by rule."""

from __future__ import annotations

import re
import string
from binascii import a2b_base64

from ragasync._redact.names import named_values
from ragasync._redact.patterns import (
    COMMON_PREFIXES,
    KEY_PREFIXES,
    PREFIX_ENDS,
    SURE_PREFIXES,
    Span,
    looks_random,
    rule,
)

MASK = "***"
"""The replacement of a secret."""

_ROUNDS = 5
"""The most passes: a replacement may uncover another secret, as in two URLs without a space."""

_KEY_SAMPLE = 96
"""The number of characters by which a key is recognised."""

_ALPHANUMERIC = string.ascii_letters + string.digits
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def redact(text: str) -> str:
    """
    Return a text with `***` in place of its secrets.

    Errors quote headers, URLs and settings. The result keeps enough to identify a secret: its
    name, the scheme, the prefix of a key, the user and the host. A text without secrets comes back
    unchanged, and so does a redacted text. The time is linear in the length of the text.

    Example:
        >>> redact("401 for https://ann:pa55@api.test/?token=a1b2 with Bearer c3d4e5")
        '401 for https://ann:***@api.test/?token=*** with Bearer ***'
    """
    for _ in range(_ROUNDS):
        before, text = text, _redact_once(text)
        if text == before:
            break
    return text


def _redact_once(text: str) -> str:
    """Apply each rule whose sign is in the text; the signs are cheap to find."""
    if "@" in text and "://" in text:
        text = rule("address").sub(_mask, text)
    if "earer " in text:
        text = rule("bearer").sub(_mask, text)
    if "asic " in text:
        text = rule("basic").sub(_mask, text)
    if "PRIVATE KEY" in text:
        text = rule("pem").sub(_mask, text)
    if " -p" in text and ("sshpass" in text or "mysql" in text):
        text = rule("command").sub(_mask, text)
    if "/webhooks/" in text or "/services/T" in text or "/bot" in text:
        text = rule("hook").sub(_mask, text)
    if "Secret" in text and ("SecretStr(" in text or "SecretBytes(" in text):
        text = rule("wrapped").sub(_mask, text)
    if "-u" in text:
        text = rule("login").sub(_mask, text)
    if "uth" in text and ("uth(" in text or "uth=(" in text):
        text = rule("auth").sub(_mask, text)
    if _has_plain_prefix(text):
        text = _replace_spans(text, _keys_after_plain_prefix(_blank_escapes(text)))
    text = _replace_spans(text, _keys_after_prefix(_blank_escapes(text)))
    lowered = text.lower()
    if len(lowered) != len(text):  # İ becomes two characters
        lowered = text.translate(_TO_LOWER)
    return _replace_spans(text, named_values(text, lowered))


def _has_plain_prefix(text: str) -> bool:
    """Return whether a text has the prefix of a key that continues without a separator."""
    if "eyJ" in text or "dapi" in text or "SK" in text:
        return True
    return "A" in text and ("AIza" in text or "AKIA" in text or "ASIA" in text)


def _blank_escapes(text: str) -> str:
    """Return a text with spaces for escapes, whose last letter is not part of a prefix."""
    if "\\" in text or "%" in text or "\x1b" in text:
        return rule("escapes").sub(lambda found: " " * len(found[0]), text)
    return text


def _replace_spans(text: str, spans: list[Span]) -> str:
    """Return a text with the mask in place of these spans, which must be in order."""
    if not spans:
        return text
    parts: list[str] = []
    done = 0
    for start, end in spans:
        parts += text[done:start], MASK
        done = end
    return "".join((*parts, text[done:]))


def _mask(found: re.Match[str]) -> str:
    """Return the replacement of a match: the part before the secret, and the mask."""
    group = str(found.lastgroup)
    value, kept = found[group], 0
    if group == "bearer" and (beginning := rule("beginning").match(value)):
        kept = beginning.end()
    if rule("no secret").fullmatch(value, kept) or _is_harmless(found, group, value):
        return found.group()
    return found.string[found.start() : found.start(group) + kept] + MASK


def _is_harmless(found: re.Match[str], group: str, value: str) -> bool:
    """Return whether a match has the shape of a secret but a harmless value."""
    match group:
        case "user":
            is_web = found.string.endswith(("http", "https"), 0, found.start())
            return not (looks_random(value, 8 if is_web else 16))
        case "bearer":
            about = found.group()[0] == "b" or rule("words after bearer").fullmatch(value)
            return value.isalpha() and bool(about)
        case "basic":
            return b":" not in _decoded(value)
        case "pem":
            return not re.search("[A-Za-z0-9+/]{16}", value)
    return False


def _decoded(pair: str) -> bytes:
    """Return a value decoded from base64, as far as it is complete; b"" if it is invalid."""
    try:
        return a2b_base64(pair.rstrip("=")[: len(pair) // 4 * 4] + "==")
    except ValueError:
        return b""


def _keys_after_plain_prefix(text: str) -> list[Span]:
    """Return the spans of keys whose prefix has no separator, such as `AKIA` and `eyJ`."""
    finds = rule("plain prefix").finditer(text)
    return [
        found.span(str(found.lastgroup))
        for found in finds
        if found.lastgroup != "google" or rule("digit or run").match(found["google"])
    ]


def _keys_after_prefix(text: str) -> list[Span]:
    """Return the spans of keys after a vendor's prefix such as `sk-`, without the prefix."""
    signs = [sign for sign in PREFIX_ENDS if sign in text]
    spans: list[Span] = []
    for at in sorted(found.end() for sign in signs for found in rule(sign).finditer(text)):
        if spans and at < spans[-1][1]:
            continue
        key = rule("key").match(text, at, at + _KEY_SAMPLE)
        if key is None or not _is_key(key[0], _prefix_before(text, at - 1)):
            continue
        end = max(rule("key").match(text, at).end(), at)  # type: ignore[union-attr]  # as above
        kind = rule("second prefix").match(key[0])
        spans.append((at + (kind.end() if kind else 0), end))
    return spans


def _prefix_before(text: str, at: int) -> str:
    """Return the letters and digits before a position, as far as they may be a prefix."""
    before = text[max(0, at - 8) : at]
    return before[len(before.rstrip(_ALPHANUMERIC)) :]


def _is_key(value: str, prefix: str) -> bool:
    """Return whether the value after a vendor's prefix is a key, and not words."""
    if prefix in COMMON_PREFIXES:
        return looks_random(value, 20) or _is_mixed(value)
    if prefix in KEY_PREFIXES:
        return looks_random(value, 16) or bool(rule("run").match(value)) or _is_mixed(value)
    is_sure = prefix in SURE_PREFIXES and not value.startswith("learn")
    return is_sure and bool(rule("digit or run").match(value))


def _is_mixed(value: str) -> bool:
    """Return whether a key begins with many letters of both cases, more mixed than in a name."""
    if not (letters := rule("letters").match(value)):
        return False
    capitals = sum(map(str.isupper, letters[0]))
    return len(letters[0]) < capitals * 4 < len(letters[0]) * 3
