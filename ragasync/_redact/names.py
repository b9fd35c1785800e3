"""Values after the names of secrets in a text: `api_key=...`, `"password": "..."`."""

from __future__ import annotations

import re
import string
from bisect import bisect
from typing import Literal, NamedTuple, TypeAlias

from ragasync._redact.patterns import (
    LOOKUP_KEYS,
    NAME_STARTS,
    SECRET_KEYS,
    TEXT_TOKENS,
    WORDS_ABOUT_SECRETS,
    Span,
    looks_random,
    rule,
)

SecretKind: TypeAlias = Literal["header", "cookie", "word", "key", "token", "maybe"]
"""
The kind of secret that a name has: credentials or cookies of a header, a word chosen by a person,
a key made by a machine, a token (maybe a text token), or a secret only if its value looks random.
"""

_OF_NAMES = string.ascii_letters + string.digits + "_-"
_LONGEST_NAME = 40

_VALUE_SAMPLE = 96
"""The number of characters by which an unquoted value is recognised; other names may follow it."""


class _Name(NamedTuple):
    """The name of a secret in a text: its span, its kind, and the text before it."""

    start: int
    end: int
    kind: SecretKind
    before: str
    is_plural: bool
    is_argument: bool = False


def named_values(text: str, lowered: str) -> list[Span]:
    """
    Return the spans of values that follow names of secrets, in order.

    Args:
        text: The text.
        lowered: The same text in lower case, with the same length.
    """
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
