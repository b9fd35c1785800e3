"""A text without the secrets that it quotes."""

from __future__ import annotations

import re
import string
from binascii import a2b_base64

from ragasync.redact.names import named_values
from ragasync.redact.patterns import (
    MARK_ENDS,
    MARKS,
    MARKS_THAT_ARE_WORDS,
    SURE_MARKS,
    Span,
    looks_random,
    rule,
)

MASK = "***"
"""What stands for what was taken out."""

_ROUNDS = 5
"""A mask may bring to light what stood in its shadow, as in two addresses run together."""

_ENOUGH_OF_A_KEY = 96
"""Characters that tell whether something is a key: no more are read before that is settled."""

_ALPHANUMERIC = string.ascii_letters + string.digits
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def redact(text: str) -> str:
    """
    Return a text with `***` in place of what looks like a secret in it.

    Errors quote what they failed with: headers, addresses, settings. Enough is kept to see what
    it was: the name, the scheme, how a key begins, the user and the host. A text without secrets
    comes back as it is, and so does one that was masked before. The time is linear in the text.

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
    """Apply each rule that a sign in the text calls for."""
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
    if _has_undivided_mark(text):
        text = _without(text, _undivided_keys(_without_escapes(text)))
    text = _without(text, _keys(_without_escapes(text)))
    lowered = text.lower()
    if len(lowered) != len(text):  # İ becomes two characters
        lowered = text.translate(_TO_LOWER)
    return _without(text, named_values(text, lowered))


def _has_undivided_mark(text: str) -> bool:
    """Return whether a text has how a key begins that is marked by its first letters."""
    if "eyJ" in text or "dapi" in text or "SK" in text:
        return True
    return "A" in text and ("AIza" in text or "AKIA" in text or "ASIA" in text)


def _without_escapes(text: str) -> str:
    """Return a text of the same length with spaces for escapes, whose last letter ends no mark."""
    if "\\" in text or "%" in text or "\x1b" in text:
        return rule("escapes").sub(lambda found: " " * len(found[0]), text)
    return text


def _without(text: str, spans: list[Span]) -> str:
    """Return a text with the mask in place of these spans, which are in order."""
    if not spans:
        return text
    parts: list[str] = []
    done = 0
    for start, end in spans:
        parts += text[done:start], MASK
        done = end
    return "".join((*parts, text[done:]))


def _mask(found: re.Match[str]) -> str:
    """Return what stands for a find of one shape: what came before the secret, and the mask."""
    group = str(found.lastgroup)
    value, kept = found[group], 0
    if group == "bearer" and (beginning := rule("beginning").match(value)):
        kept = beginning.end()
    if rule("no secret").fullmatch(value, kept) or _is_ordinary(found, group, value):
        return found.group()
    return found.string[found.start() : found.start(group) + kept] + MASK


def _is_ordinary(found: re.Match[str], group: str, value: str) -> bool:
    """Return whether what has the shape of a secret is none, by how its value looks."""
    match group:
        case "user":
            is_web = found.string.endswith(("http", "https"), 0, found.start())
            return not (looks_random(value, 8 if is_web else 16))
        case "bearer":
            about = found.group()[0] == "b" or rule("said of bearers").fullmatch(value)
            return value.isalpha() and bool(about)
        case "basic":
            return b":" not in _decoded(value)
        case "pem":
            return not re.search("[A-Za-z0-9+/]{16}", value)
    return False


def _decoded(pair: str) -> bytes:
    """Return what base64 says, as far as it goes; nothing if it is none."""
    try:
        return a2b_base64(pair.rstrip("=")[: len(pair) // 4 * 4] + "==")
    except ValueError:
        return b""


def _undivided_keys(text: str) -> list[Span]:
    """Return where the keys are whose mark nothing divides from the rest."""
    finds = rule("undivided").finditer(text)
    return [
        found.span(str(found.lastgroup))
        for found in finds
        if found.lastgroup != "google" or rule("digit or run").match(found["google"])
    ]


def _keys(text: str) -> list[Span]:
    """Return where the keys are that begin with the mark of their maker, without that mark."""
    signs = [sign for sign in MARK_ENDS if sign in text]
    spans: list[Span] = []
    for at in sorted(found.end() for sign in signs for found in rule(sign).finditer(text)):
        if spans and at < spans[-1][1]:
            continue
        key = rule("key").match(text, at, at + _ENOUGH_OF_A_KEY)
        if key is None or not _is_key(key[0], _mark_before(text, at - 1)):
            continue
        end = max(rule("key").match(text, at).end(), at)  # type: ignore[union-attr]  # as above
        sort = rule("second mark").match(key[0])
        spans.append((at + (sort.end() if sort else 0), end))
    return spans


def _mark_before(text: str, at: int) -> str:
    """Return the letters and digits that lead to a place, as far as they may be a mark."""
    before = text[max(0, at - 8) : at]
    return before[len(before.rstrip(_ALPHANUMERIC)) :]


def _is_key(value: str, mark: str) -> bool:
    """Return whether what follows the mark of a maker of keys is one, and no words."""
    if mark in MARKS_THAT_ARE_WORDS:
        return looks_random(value, 20) or _is_mixed(value)
    if mark in MARKS:
        return looks_random(value, 16) or bool(rule("run").match(value)) or _is_mixed(value)
    is_sure = mark in SURE_MARKS and not value.startswith("learn")
    return is_sure and bool(rule("digit or run").match(value))


def _is_mixed(value: str) -> bool:
    """Return whether a key begins with many letters of both cases, more mixed than in names."""
    if not (letters := rule("letters").match(value)):
        return False
    capitals = sum(map(str.isupper, letters[0]))
    return len(letters[0]) < capitals * 4 < len(letters[0]) * 3
