"""
Values of a fingerprint: which attributes of an object are settings, and plain values as text.

Attributes are read by the interpreter's own descriptors, so that nothing defined by a class of the
user, such as `__getattr__`, `__class__` or a property, is run. A plain value is short text if it is
certainly not a secret, else a digest.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any, Final
from uuid import UUID

from ragasync._function_fingerprint.code import ANY, digest, names_in
from ragasync.foreign_errors import is_a
from ragasync.redact import redact

NATIVE: Final = (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
"""Types of functions written in C."""

MUTABLE: Final = (list, dict, set, bytearray)
"""Types that can be changed in place."""

CONSTRUCTORS: Final = ("__new__", "__init__", "__post_init__")
"""Methods that construct an object."""

_RUNTIME: Final = frozenset(
    """asyncio concurrent contextvars http io logging multiprocessing queue random selectors socket
    sqlite3 ssl subprocess tempfile thread threading time weakref""".split()  # noqa: SIM905
)
_HEAP_TYPE: Final = 1 << 9
_OURS: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120
_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120

DEEPEST: Final = 6
"""Maximum depth of nested plain data and objects."""

CONTAINERS: Final = (list, tuple, dict, set, frozenset)
"""Types of containers of values."""

_LONGEST_SHOWN: Final = 40
_MOST_ENTRIES: Final = 10_000
_MOST_CHARACTERS: Final = 1 << 20
_BRACKETS: Final = {list: ("[", "]"), tuple: ("(", ")")}
_SECRET: Final = re.compile(
    "key|tok|secret|pass|pw|api|auth|cred|cookie|session|dsn|bearer|sign|private|header",
    re.IGNORECASE,
)
_WORD: Final = r"(?:[A-Za-z]?[a-z]{0,15}|[A-Z]{1,5}|\d{1,8}|[A-Za-z\d]{1,6})"
_SAID: Final = re.compile(rf"{_WORD}(?:[-_./:]+{_WORD})*")
_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice)
_WRITTEN_OUT: Final = (date, time, timedelta, timezone, Decimal, Fraction, UUID)


def settings_of(
    value: object, stored: set[str], changed: set[str], begin_empty: set[str]
) -> dict[str, object]:
    """
    Attributes of an object that are settings, as opposed to state.

    A constructor argument is a setting, unless it is a number that other code sets, which is a
    counter. Another attribute is a setting if no code sets it after the constructor. A list, dict
    or set is state if code changes it in place, or if it is empty at first. For classes of
    libraries, only the constructor arguments count.

    Args:
        value: the object.
        stored: attributes, of any object, that code sets outside of constructors.
        changed: attributes that code changes in place; ANY if this is unknown.
        begin_empty: attributes that the constructor sets to an empty container.
    """
    kind = type(value)
    if _is_no_function(kind):
        return {}
    arguments = _arguments_of(kind)
    is_closed = is_library_class(kind) and kind is not SimpleNamespace
    found = {}
    for name, setting in attributes_of(value).items():
        bare = re.sub(r"^_\w+?__", "", name).strip("_")
        is_mutable = is_a(setting, MUTABLE)
        if name.startswith("__") or (name in stored and is_number(setting)):
            continue
        if is_a(static_member(kind, name), cached_property):  # its cached value
            continue
        if is_mutable and not changed.isdisjoint({name, ANY}):
            continue
        if bare in arguments:
            found[bare] = setting
        elif not (is_closed or name in stored or (is_mutable and name in begin_empty)):
            found[name] = setting
    return found


def _arguments_of(cls: type) -> set[str]:
    """Names of a class's constructor arguments and annotated fields."""
    names: set[str] = set()
    for one in _mro(cls):
        own = vars_of(one)
        for constructor in ("__new__", "__init__"):
            function = own.get(constructor)
            function = function.__func__ if is_a(function, staticmethod) else function
            if is_a(function, FunctionType):
                code = function.__code__
                count = code.co_argcount + code.co_kwonlyargcount
                names.update(name.strip("_") for name in code.co_varnames[:count])
        annotated = own.get("__annotations__")
        if is_a(annotated, dict):
            names.update(str(name).strip("_") for name in annotated)
    return names


def set_by_methods(cls: type) -> set[str]:
    """Attributes that the methods of a class set, except its constructors."""
    names: set[str] = set()
    for one in own_classes(cls):
        for name, member in vars_of(one).items():
            if is_a(member, FunctionType) and name not in (*CONSTRUCTORS, "__setstate__"):
                names |= names_in(member.__code__).stored
    return names


def attributes_of(value: object) -> dict[str, object]:
    """Attributes in an object's `__dict__` and slots."""
    found: dict[str, object] = {}
    for cls in _mro(type(value)):
        for name, member in vars_of(cls).items():
            try:
                is_slot = is_a(member, MemberDescriptorType)
                if name == "__dict__" and (is_slot or is_a(member, GetSetDescriptorType)):
                    found.update(member.__get__(value))
                elif is_slot:
                    found[name] = member.__get__(value)
            except (AttributeError, TypeError):  # an empty slot, or no dict
                continue
    return {name: setting for name, setting in found.items() if type(name) is str}


def _mro(cls: type) -> tuple[type, ...]:
    """Method resolution order of a class, read without its metaclass."""
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(cls)
    return found


def vars_of(cls: type) -> Mapping[str, Any]:
    """Namespace of a class, without its bases."""
    found: Mapping[str, Any] = type.__dict__["__dict__"].__get__(cls)
    return found


def static_member(cls: type, name: str) -> object:
    """Class attribute of this name, without binding it."""
    return next((vars_of(one)[name] for one in _mro(cls) if name in vars_of(one)), None)


def own_classes(cls: type) -> list[type]:
    """A class and those of its bases that are not from libraries."""
    return [one for one in _mro(cls) if not is_library_class(one)]


def members_of(cls: type, value: object, *names: str) -> tuple[Any, ...]:
    """Attributes of an object, read by the descriptors of a class written in C."""
    return tuple(vars_of(cls)[name].__get__(value) for name in names)


def is_library(filename: str) -> bool:
    """Whether a file belongs to a library, whose code is identified by name only."""
    if "site-packages" in filename or "dist-packages" in filename:
        return True
    return filename.startswith((_OURS, _LIBRARY, "<frozen"))


def is_library_class(cls: type) -> bool:
    """Whether a class is from Python itself or from a library."""
    module = sys.modules.get(str(vars_of(cls).get("__module__", "")))
    if module is None or module.__name__ == "__main__":
        return module_of(cls) == "builtins"
    filename = vars(module).get("__file__")
    return not is_a(filename, str) or is_library(filename)


def _is_no_function(cls: type) -> bool:
    """Whether a class of ragasync is about how calls are made, or where results go."""
    module = module_of(cls)
    if module.startswith("ragasync.documents."):
        return static_member(cls, "__call__") is None
    return module.startswith("ragasync.")


def is_runtime(cls: type) -> bool:
    """Whether a class of the standard library is about how a program runs, such as a logger."""
    return module_of(cls).partition(".")[0].strip("_") in _RUNTIME


def is_native_class(cls: type) -> bool:
    """Whether a class is written in C."""
    flags: int = type.__dict__["__flags__"].__get__(cls)
    return not flags & _HEAP_TYPE


def module_of(cls: type) -> str:
    """Module name of a class."""
    return str(vars_of(cls).get("__module__", "builtins"))


def qualname(cls: type) -> str:
    """Qualified name of a class, without enclosing functions."""
    name: str = type.__dict__["__qualname__"].__get__(cls)
    return name.rpartition("<locals>.")[2]


def name_of(thing: object) -> str:
    """Full name, with module, of a function or class."""
    if is_a(thing, type):
        return f"{module_of(thing)}.{qualname(thing)}"
    owner = bound_to(thing)
    module = getattr(thing, "__module__", None) or "builtins"
    if owner is not None:
        module = module_of(type(owner))
    return f"{module}.{getattr(thing, '__qualname__', '')}"


def bound_to(function: object) -> object:
    """Object to which a function written in C is bound, if it is a method."""
    owner = getattr(function, "__self__", None) if is_a(function, NATIVE) else None
    return None if is_a(owner, ModuleType) else owner


def is_number(value: object) -> bool:
    """Whether a value is a number, as counters are."""
    return type(value) in (int, float)


class NotPlain(Exception):
    """A value is not plain data."""


def shown(name: str, value: object) -> str:
    """
    Fingerprint part of a plain value: the value itself if it cannot be a secret, else a digest.

    Shown are numbers, names in code, and short texts of words and numbers, such as model names.

    Raises:
        NotPlain: it is not plain data.
    """
    text = plain(value)
    is_named = is_a(value, (bool, int, float, type(None), Enum, type, ModuleType, *NATIVE))
    is_said = is_named or (is_a(value, str) and _SAID.fullmatch(value) is not None)
    is_secret = _SECRET.search(name) or _SECRET.search(text) or redact(text) != text
    if is_said and not is_secret and len(text) <= _LONGEST_SHOWN + 2:
        return f"value:{text}"
    return f"digest:{digest(text)}"


def plain(value: object) -> str:
    """
    Plain data as text that is the same in every process; large data is truncated.

    Raises:
        NotPlain: it is not plain data.
    """
    return _Writing().text(value)


def entries(value: Any) -> Iterator[tuple[object, object]]:
    """Keys and entries of a container; none for a set, which has no order."""
    base: Any = next(cls for cls in CONTAINERS if is_a(value, cls))
    if base is dict:
        yield from dict.items(value)
    elif base in (list, tuple):
        yield from enumerate(base.__iter__(value))


class _Writing:
    """Writes plain data as text, up to a number of entries and characters."""

    def __init__(self) -> None:
        self._entries, self._characters = _MOST_ENTRIES, _MOST_CHARACTERS

    def text(self, value: Any, depth: int = 0) -> str:
        """A value as text."""
        kind: type = type(value)
        if is_a(value, Enum):
            return f"{qualname(kind)}.{object.__getattribute__(value, '_name_')}"
        if kind in _PLAIN:
            return self._scalar(value)
        if is_a(value, type):
            return f"class {qualname(value)}"
        if is_a(value, NATIVE):
            return name_of(value)
        if is_a(value, ModuleType):
            return f"module {vars(value).get('__name__')}"
        if is_a(value, PurePath) and module_of(kind).startswith("pathlib"):
            return f"Path({str(value)!r})"
        if kind is re.Pattern:
            return f"re({value.pattern!r}, {value.flags})"
        if kind in _WRITTEN_OUT or (
            kind is datetime and type(value.tzinfo) in (timezone, type(None))
        ):
            return repr(value)
        if kind is MappingProxyType:
            (value,) = gc.get_referents(value)  # reading the proxy may run code of the user
        if is_a(value, CONTAINERS) and depth <= DEEPEST:
            return self._container(value, depth + 1)
        return self._of_numpy(value, depth + 1)

    def _scalar(self, value: Any) -> str:
        """A scalar value as text."""
        if not is_a(value, (str, bytes)):
            return hex(value) if type(value) is int and value.bit_length() > 64 else repr(value)
        shown = value[: self._characters]
        self._characters -= len(shown)
        return repr(shown) + (f" of {len(value)}" if len(shown) < len(value) else "")

    def _container(self, value: Any, depth: int) -> str:
        """A container of plain data as text; dicts and sets are sorted."""
        base: Any = next(cls for cls in CONTAINERS if is_a(value, cls))
        size, room = base.__len__(value), self._entries
        self._entries = max(0, room - size)
        if base is dict:
            pairs = islice(dict.items(value), room)
            texts = [f"{self.text(key, depth)}: {self.text(each, depth)}" for key, each in pairs]
        elif base in (set, frozenset) and size > room:
            texts = []  # their order differs in every process
        else:
            texts = [self.text(entry, depth) for entry in islice(base.__iter__(value), room)]
        if base not in (list, tuple):
            texts.sort()
        opening, closing = _BRACKETS.get(base, ("{", "}"))
        own = "" if type(value) in CONTAINERS else qualname(type(value))
        more = f" of {size}" if size > len(texts) else ""
        return f"{own}{opening}{', '.join(texts)}{closing}{more}"

    def _of_numpy(self, value: Any, depth: int) -> str:
        """A numpy scalar or array as text, if numpy is loaded."""
        numpy = sys.modules.get("numpy")
        if numpy is not None and is_a(value, numpy.generic):
            return f"{qualname(type(value))}({self.text(numpy.generic.item(value), depth)})"
        if numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject:
            content = value.tobytes() if value.nbytes <= _MOST_CHARACTERS else b""
            return f"array({value.shape}, {value.dtype}, {digest(content.hex())})"
        raise NotPlain
