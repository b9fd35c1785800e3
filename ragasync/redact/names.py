"""The values in a text that follow the names of secrets: `api_key=...`, `"password": "..."`."""

from __future__ import annotations

import re
import string
from bisect import bisect
from typing import Literal, NamedTuple, TypeAlias

from ragasync.redact.patterns import (
    LOOKUP_KEYS,
    SECRET_KEYS,
    SIGNS_OF_NAMES,
    TEXT_TOKENS,
    WORDS_SAID_OF_SECRETS,
    Span,
    looks_random,
    rule,
)

Sort: TypeAlias = Literal["header", "cookie", "word", "key", "token", "maybe"]
"""
What a name stands for: credentials or cookies of a header, a word that somebody chose, a key that
a machine made, a token (of a text, maybe), or what is a secret only if it looks random.
"""

_OF_NAMES = string.ascii_letters + string.digits + "_-"
_LONGEST_NAME = 40

_ENOUGH_OF_A_VALUE = 96
"""Characters of a value without quotes that tell whether it is a secret: names may follow there."""


class _Name(NamedTuple):
    """The name of a secret: where its value may begin, what it stands for, what is before it."""

    start: int
    end: int
    sort: Sort
    before: str
    is_plural: bool
    is_argument: bool = False


def named_values(text: str, lowered: str) -> list[Span]:
    """
    Return where the values are that follow names of secrets, in order.

    Args:
        text: what quotes them.
        lowered: the same text in lower case, of the same length.
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
            span = _secret_after(text, name, _forms(name)) or _said_after(text, name)
        if span:
            spans.append(span)
    return spans


def _names_in(lowered: str) -> list[re.Match[str]]:
    """Return the last words of what may be names with a value, in order."""
    signs = [sign for sign in SIGNS_OF_NAMES if sign in lowered]
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
    """Return where the last word of a name begins."""
    return found.start("word")


def _frames(text: str) -> list[Span]:
    """Return where the frames of tracebacks are, in whose code only literals are secrets."""
    return [found.span() for found in rule("frame").finditer(text)] if 'File "' in text else []


def _is_in(spans: list[Span], place: int) -> bool:
    """Return whether a place is within one of these spans, which are in order."""
    before = bisect(spans, (place, place))
    return before > 0 and place < spans[before - 1][1]


def _name_at(text: str, found: re.Match[str]) -> _Name | None:
    """Return the name of a secret that ends in the word that was found, if it does."""
    start, word, suffix = _start(found), found["word"], found["suffix"] or ""
    head = text[max(0, start - _LONGEST_NAME) : start]
    before = head.rstrip(_OF_NAMES)
    prefix = head[len(before) :]
    sort = _sort_of(prefix, word, before, text[start : found.end("word")])
    if suffix == "s" and word == "token":
        sort = sort and "maybe"  # of a text, mostly
    elif suffix == "s" and word not in ("key", "cookie", "credential", "secret"):
        return None
    if suffix.endswith("id") and not prefix.lower().endswith(("access", "access_")):
        return None
    if sort is None:
        return None
    end = found.end("word") + len(suffix)
    return _Name(start - len(prefix), end, sort, before, suffix == "s" and word != "token")


def _sort_of(prefix: str, word: str, before: str, written: str) -> Sort | None:
    """Return what a name stands for, by its last word and what stands before that."""
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


def _sort_of_key(prefix: str, stem: str, before: str, written: str) -> Sort | None:
    """Return whether a key is a secret for sure, or if it looks so, or one to look things up."""
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
    """Return the forms that the value of a name may have."""
    match name.sort:
        case "header":
            return ("credentials",)
        case "cookie":
            return ("several", "crumbs", "quoted", "bare")
    return ("several", "quoted", "bare") if name.is_plural else ("quoted", "bare")


def _secret_after(text: str, name: _Name, forms: tuple[str, ...]) -> Span | None:
    """Return where the secret is that a name and a sign lead to, if one does."""
    quote = name.before[-1:] in ("'", '"')
    signs = ["sign", "refused"]
    if text.startswith(":", name.end):
        signs.insert(0, "annotated")
    if quote and (opening := re.search(r"([(\[])b?\\*$", name.before[:-1])):
        signs.append("pair" if opening[1] == "(" else "pair in a list")
    if quote:
        signs.append("described")
    elif name.before[-1:] == "<":
        signs.append("element")
    for sign in signs:
        if gap := rule(sign).match(text, name.end):
            # {"password": word} says what it is, and so does password=word.
            is_tight = quote or not gap["space"]
            return _secret_at(text, gap.end(), forms, name, is_tight=is_tight)
    if name.sort == "cookie" and (crumb := rule("crumb").match(text, name.end)):
        return crumb.span("crumb")  # <Cookie name=value for host>
    return None


def _said_after(text: str, name: _Name) -> Span | None:
    """Return where a secret is that a sentence mentions, by how it looks."""
    said = rule("said").match(text, name.end)
    if said is None or name.sort in ("header", "cookie"):
        return None
    value = said["said"]
    if name.sort == "word":
        has_both = re.search("[A-Za-z][0-9]|[0-9][A-Za-z]", value)
        is_secret = bool(has_both) and not rule("algorithm").fullmatch(value)
    else:
        is_secret = looks_random(value, 16)
    return said.span("said") if is_secret else None


def _secret_at(
    text: str, at: int, forms: tuple[str, ...], name: _Name, *, is_tight: bool
) -> Span | None:
    """Return where the secret is in the value that begins here, if it is one."""
    for form in forms:
        most = at + _ENOUGH_OF_A_VALUE if form == "bare" else len(text)
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
    if name.sort == "maybe" or (name.sort == "cookie" and group in ("quoted", "escaped", "bare")):
        is_secret = looks_random(value, 16)
    elif group in ("quoted", "escaped"):
        is_word = len(value) < 16 and value.isalpha() and not name.is_argument
        is_secret = name.sort != "token" or not (is_word or (not is_tight and len(value) < 8))
    elif group in ("bare", "credentials"):
        is_secret = is_tight or not _is_word(value, text[end : end + 2], name)
    else:
        is_secret = True
    is_number = name.sort in ("key", "token") and value.isdecimal() and len(value) < 8
    is_path = value[:1] == "/" and text[name.end - 3 : name.end].upper() == "PWD"
    if not is_secret or is_number or is_path:
        return None
    if found.end() == at + _ENOUGH_OF_A_VALUE and group == "bare":
        rest = rule("rest").match(text, end)
        end += len(rest[0].rstrip(",.:)]}>")) if rest else 0
    return (start, end)


def _is_word(value: str, after: str, name: _Name) -> bool:
    """Return whether a value is a word that is said of a secret, or stands for it."""
    if value.isupper() and value.replace("_", "").isalpha():
        return True  # --password PASSWORD
    if not value.isalpha() or not value[1:].islower() or len(value) >= 16:
        return False
    goes_on = after[:1] == " " and after[1:].isalpha() and not name.is_argument
    is_text = name.sort == "token" and not name.is_argument
    return is_text or goes_on or value.lower() in WORDS_SAID_OF_SECRETS
