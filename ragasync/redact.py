"""
Redaction: replaces the secrets that a text quotes by `***`, before anything shows the text.

A text is cut to a few kilobytes by `ragasync.error_text` before it comes here. `redact` looks for
cheap signs ("://", "earer ", "key") and runs only the expressions that these call for; then it
finds key prefixes such as `sk-`, and values that follow a secret's name, as in `api_key=...`. It
repeats that until nothing changes, because a mask may uncover another secret.
"""

from __future__ import annotations

import re
import string
from binascii import a2b_base64
from bisect import bisect
from typing import Literal, NamedTuple, TypeAlias

from ragasync.secret_patterns import (
    COMMON_PREFIXES,
    KEY_PREFIXES,
    LOOKUP_KEYS,
    NAME_STARTS,
    PREFIX_ENDS,
    SECRET_KEYS,
    SURE_PREFIXES,
    TEXT_TOKENS,
    WORDS_ABOUT_SECRETS,
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

SecretKind: TypeAlias = Literal["header", "cookie", "word", "key", "token", "maybe"]
"""
The kind of secret that a name has: credentials or cookies of a header, a word chosen by a person,
a key made by a machine, a token (maybe a text token), or a secret only if its value looks random.
"""

_OF_NAMES = string.ascii_letters + string.digits + "_-"
_LONGEST_NAME = 40

_VALUE_SAMPLE = 96
"""The number of characters by which an unquoted value is recognised; other names may follow it."""

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
    finds = rule("plain").finditer(text)
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


# ── values that follow the name of a secret ─────────────────────────────────────────────────────


class _Name(NamedTuple):
    """The name of a secret in a text: its span, its kind, and the text before it."""

    start: int
    end: int
    kind: SecretKind
    before: str
    is_plural: bool
    is_argument: bool = False


def named_values(text: str, lowered: str) -> list[Span]:
    """Return the spans of values after names of secrets; `lowered` has the length of `text`."""
    finds = _names_in(lowered)
    if not finds:
        return []
    frames = _frames(text)
    spans: list[Span] = []
    for found in finds:
        start = _start(found)
        if spans and start < spans[-1][1]:
            continue
        name = _name_at(text, found)
        if name is None:
            continue
        if found.re is rule("argument"):
            is_tight = "," in found[0]  # in a list: ["--token", "a1b2"]
            name = name._replace(is_argument=True)
            span = _secret_at(text, found.end(), ("quoted", "bare"), name, is_tight=is_tight)
        elif _is_in(frames, start):
            span = _secret_after(text, name, ("quoted",))
        else:
            span = _secret_after(text, name, _forms(name)) or _mentioned_after(text, name)
        if span:
            spans.append(span)
    return spans


def _names_in(lowered: str) -> list[re.Match[str]]:
    """Return matches of the last words of possible names with a value, in order."""
    signs = [sign for sign in NAME_STARTS if sign in lowered]
    if not signs:
        return []
    finds: list[re.Match[str]] = []
    name_at = rule("name").match
    for sign in signs:
        at = lowered.find(sign)
        while at >= 0:
            if found := name_at(lowered, at):
                finds.append(found)
            at = lowered.find(sign, at + 1)
    if "--" in lowered:
        finds = [*rule("argument").finditer(lowered), *finds]
    return sorted(finds, key=_start)


def _start(found: re.Match[str]) -> int:
    """Return the start of the last word of a name."""
    return found.start("word")


def _frames(text: str) -> list[Span]:
    """Return the spans of traceback frames, in whose code only literals can be secrets."""
    return [found.span() for found in rule("frame").finditer(text)] if 'File "' in text else []


def _is_in(spans: list[Span], place: int) -> bool:
    """Return whether a position is within one of these spans, which must be in order."""
    before = bisect(spans, (place, place))
    return before > 0 and place < spans[before - 1][1]


def _name_at(text: str, found: re.Match[str]) -> _Name | None:
    """Return the name of a secret that ends in the matched word, or None."""
    start, word, suffix = _start(found), found["word"], found["suffix"] or ""
    head = text[max(0, start - _LONGEST_NAME) : start]
    before = head.rstrip(_OF_NAMES)
    prefix = head[len(before) :]
    kind = _sort_of(prefix, word, before, text[start : found.end("word")])
    if suffix == "s" and word == "token":
        kind = kind and "maybe"  # of a text, mostly
    elif suffix == "s" and word not in ("key", "cookie", "credential", "secret"):
        return None
    if suffix.endswith("id") and not prefix.lower().endswith(("access", "access_")):
        return None
    if kind is None:
        return None
    end = found.end("word") + len(suffix)
    return _Name(start - len(prefix), end, kind, before, suffix == "s" and word != "token")


def _sort_of(prefix: str, word: str, before: str, written: str) -> SecretKind | None:
    """Return the kind of secret of a name, by its last word and the text before that."""
    stem = prefix.strip("-_").lower()
    in_query = not prefix and before[-1:] in ("?", "&", ";")
    match word:
        case "authorization":
            return "header"
        case "cookie":
            return "cookie"
        case "token":
            last = re.split("[-_]", stem)[-1]
            is_text = last in TEXT_TOKENS or last.endswith(("next", "page"))
            return None if is_text else "key" if prefix else "token"
        case "key":
            return "key" if in_query else _sort_of_key(prefix, stem, before, written)
        case "pass" | "auth" | "sig" | "signature" | "credential":
            if prefix and prefix[-1] not in "-_":
                return None  # bypass, design
            return "key" if in_query or stem.startswith(("x-amz", "x-goog")) else "maybe"
        case "pw" if prefix and prefix[-1] not in "-_":
            return None
        case "jwt":
            return "key"
        case "session_id" | "sessionid" | "sessid":
            return "maybe"
    return "word"


def _sort_of_key(prefix: str, stem: str, before: str, written: str) -> SecretKind | None:
    """Return "key" for a secret key, "maybe" if the value decides, or None for a lookup key."""
    head = (stem if prefix else before[-20:]).removesuffix(" ")
    about = head[len(head.rstrip(string.ascii_letters)) :].lower()
    if about.endswith(SECRET_KEYS):
        return "key"
    if about.endswith(LOOKUP_KEYS):
        return None
    if prefix and prefix[-1] not in "-_" and written[0] != "K":
        return None  # monkey
    is_setting = prefix and written == "KEY"
    in_client = "(" in before and rule("client").search(before)
    return "key" if is_setting or in_client else "maybe"


def _forms(name: _Name) -> tuple[str, ...]:
    """Return the names of the rules for the forms that a name's value may have."""
    match name.kind:
        case "header":
            return ("credentials",)
        case "cookie":
            return ("several", "crumbs", "quoted", "bare")
    return ("several", "quoted", "bare") if name.is_plural else ("quoted", "bare")


def _secret_after(text: str, name: _Name, forms: tuple[str, ...]) -> Span | None:
    """Return the span of the secret after a name and a sign such as `=`, or None."""
    quote = name.before[-1:] in ("'", '"')
    signs = ["sign", "input value"]
    if text.startswith(":", name.end):
        signs.insert(0, "annotated")
    if quote and (opening := re.search(r"([(\[])b?\\*$", name.before[:-1])):
        signs.append("pair" if opening[1] == "(" else "pair in a list")
    if quote:
        signs.append("separate field")
    elif name.before[-1:] == "<":
        signs.append("element")
    for sign in signs:
        if gap := rule(sign).match(text, name.end):
            # {"password": word} says what it is, and so does password=word.
            is_tight = quote or not gap["space"]
            return _secret_at(text, gap.end(), forms, name, is_tight=is_tight)
    if name.kind == "cookie" and (crumb := rule("crumb").match(text, name.end)):
        return crumb.span("crumb")  # <Cookie name=value for host>
    return None


def _mentioned_after(text: str, name: _Name) -> Span | None:
    """Return the span of a secret that a sentence mentions after its name, or None."""
    found = rule("mention").match(text, name.end)
    if found is None or name.kind in ("header", "cookie"):
        return None
    value = found["mention"]
    if name.kind == "word":
        has_both = re.search("[A-Za-z][0-9]|[0-9][A-Za-z]", value)
        is_secret = bool(has_both) and not rule("algorithm").fullmatch(value)
    else:
        is_secret = looks_random(value, 16)
    return found.span("mention") if is_secret else None


def _secret_at(
    text: str, at: int, forms: tuple[str, ...], name: _Name, *, is_tight: bool
) -> Span | None:
    """Return the span of the secret in the value that begins here, or None."""
    for form in forms:
        most = at + _VALUE_SAMPLE if form == "bare" else len(text)
        if found := rule(form).match(text, at, most):
            break
    else:
        return None
    group = str(found.lastgroup)
    value, (start, end) = found[group], found.span(group)
    if group == "bare":
        value = value.rstrip(",.:)]>" if "{" in value else ",.:)]}>")
        end = start + len(value)
    if "crumbs" not in group and (beginning := rule("beginning").match(value)):
        start += beginning.end()
        value = value[beginning.end() :]
    if rule("no secret").fullmatch(value):
        return None
    if name.kind == "maybe" or (name.kind == "cookie" and group in ("quoted", "escaped", "bare")):
        is_secret = looks_random(value, 16)
    elif group in ("quoted", "escaped"):
        is_word = len(value) < 16 and value.isalpha() and not name.is_argument
        is_secret = name.kind != "token" or not (is_word or (not is_tight and len(value) < 8))
    elif group in ("bare", "credentials"):
        is_secret = is_tight or not _is_word(value, text[end : end + 2], name)
    else:
        is_secret = True
    is_number = name.kind in ("key", "token") and value.isdecimal() and len(value) < 8
    is_path = value[:1] == "/" and text[name.end - 3 : name.end].upper() == "PWD"
    if not is_secret or is_number or is_path:
        return None
    if found.end() == at + _VALUE_SAMPLE and group == "bare":
        rest = rule("rest").match(text, end)
        end += len(rest[0].rstrip(",.:)]}>")) if rest else 0
    return (start, end)


def _is_word(value: str, after: str, name: _Name) -> bool:
    """Return whether a value is a word about a secret or a placeholder, not the secret."""
    if value.isupper() and value.replace("_", "").isalpha():
        return True  # --password PASSWORD
    if not value.isalpha() or not value[1:].islower() or len(value) >= 16:
        return False
    goes_on = after[:1] == " " and after[1:].isalpha() and not name.is_argument
    is_text = name.kind == "token" and not name.is_argument
    return is_text or goes_on or value.lower() in WORDS_ABOUT_SECRETS
