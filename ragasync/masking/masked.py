"""A text without the secrets that it quotes."""

from __future__ import annotations

import re
from binascii import a2b_base64

from ragasync.masking.rules import rule

MASK = "***"
"""What stands for what was taken out."""

_SIGNS_OF_VALUES = (
    *("token", "key", "secret", "passw", "cookie", "authorization", "passphrase", "pwd"),
    *("sig", "auth=", "pass=", "credential"),
)
_SIGNS_OF_KEYS = ("k-", "_", "eyJ", "AKIA", "ASIA", "AIza", "xox", "lpat-")
"""What a text has, in lower case and as it is, if the dearer rules are worth trying."""

_ROUNDS = 5
"""A mask may bring to light what stood in its shadow, as in two addresses run together."""


def masked(text: str) -> str:
    """
    Return a text with `***` in place of what looks like a secret in it.

    Errors quote what they failed with: headers, addresses, settings. Enough is kept to see what
    it was: the name, the scheme, how a key begins, the user and the host. A text without secrets
    comes back as it is, and so does one that was masked before.

    Example:
        >>> masked("401 for https://ann:pa55@api.test/?token=a1b2 with Bearer c3d4e5")
        '401 for https://ann:***@api.test/?token=*** with Bearer ***'
    """
    for _ in range(_ROUNDS):
        before, text = text, _masked_once(text)
        if text == before:
            break
    return text


def _masked_once(text: str) -> str:
    """Apply each rule that a sign in the text calls for."""
    if "@" in text and "://" in text:
        text = rule("address").sub(_mask, text)
    if "earer " in text:
        text = rule("bearer").sub(_mask, text)
    if "asic " in text:
        text = rule("basic").sub(_mask, text)
    if "PRIVATE KEY" in text:
        text = rule("pem").sub(_mask, text)
    if any(sign in text for sign in _SIGNS_OF_KEYS):
        text = rule("key").sub(_mask, text)
    lowered = text.lower()
    for sign in _SIGNS_OF_VALUES:
        if sign in lowered:  # last, because what precedes a value may be part of a key
            return rule("values").sub(_mask, text) if rule("named").search(lowered) else text
    return text


def _mask(found: re.Match[str]) -> str:
    """Return what stands for one find: what came before the secret, and the mask."""
    whole, group = found.group(), str(found.lastgroup)
    if group == "frame":
        return rule("literals").sub(_mask, whole)
    start = found.start(group)
    before, value = found.string[found.start() : start], found[group]
    if group in _SHOW_THEIR_SORT and (beginning := rule("beginning").match(value)):
        before, value = before + beginning.group(), value[beginning.end() :]
    if rule("no secret").fullmatch(value) or _is_ordinary(found, group, value):
        return whole
    return before + MASK


_SHOW_THEIR_SORT = ("quoted", "escaped", "credentials", "bare", "bearer")
"""Groups of values whose beginning may be a scheme, or tell what sort of a key they are."""


def _is_ordinary(found: re.Match[str], group: str, value: str) -> bool:
    """Return whether a find is none, by how its value looks."""
    match group:
        case "quoted" | "escaped" | "credentials" | "bare":
            return _is_prose(found, group, value)
        case "bearer":
            about = found.group()[0] == "b" or rule("about bearers").fullmatch(value)
            return value.isalpha() and bool(about)
        case "basic":
            return b":" not in _decoded(value)
        case "pem":
            return not re.search("[A-Za-z0-9+/]{16}", value)
        case "key" | "plain_key":
            return not re.search("[0-9]|[A-Za-z]{16}", value)
    return False


def _is_prose(found: re.Match[str], group: str, value: str) -> bool:
    """Return whether a value is a word said of a secret, or the number of something else."""
    quote = found["quote"] or found["escape"] or ""
    name = found.group()[: found.start(group) - found.start() - len(quote)].lower()
    is_random = "token" in name or "key" in name  # keys are long, and no words
    if is_random and value.isdecimal() and len(value) < 8:
        return True
    sign = name.rstrip(" ")
    if sign == name or sign.endswith(",") or sign.rstrip(" :=").endswith(("'", '"')):
        return False  # password=word, or {"password": word}
    if quote:
        return is_random and len(value) < 8  # unexpected token: 'else'
    is_word = value.isalpha() and value[1:].islower() and len(value) < 16
    goes_on = found.string[found.end() : found.end() + 2]
    return is_word and (is_random or (goes_on[:1] == " " and goes_on[1:].isalpha()))


def _decoded(pair: str) -> bytes:
    """Return what base64 says, as far as it goes; nothing if it is none."""
    try:
        return a2b_base64(pair.rstrip("=")[: len(pair) // 4 * 4] + "==")
    except ValueError:
        return b""
