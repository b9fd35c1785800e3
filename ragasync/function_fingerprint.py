"""
The fingerprint of a function: what counts as a change of it, over restarts and Pythons.

It covers the function's code (see `function_code`), and the values that the code works with:
defaults, closure, the arguments of a partial, the settings of the object whose method it is, and
the global constants and functions of its own module that it reads. It is taken when a processor is
made, runs no code of the user's, and holds no value that may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from types import (
    CellType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final

from ragasync.foreign_errors import is_a
from ragasync.function_code import (
    Sources,
    changed_in_place,
    digest_of_bytecode,
    digest_of_source,
    names_in,
)
from ragasync.object_settings import (
    CONSTRUCTORS,
    MUTABLE,
    NATIVE,
    attributes_of,
    bound_to,
    is_library,
    is_library_class,
    is_number,
    is_record,
    members_of,
    name_of,
    own_classes,
    qualname,
    set_by_methods,
    settings_of,
    static_member,
    vars_of,
)
from ragasync.plain_values import CONTAINERS, DEEPEST, NotPlain, entries, shown

UNKNOWN: Final = "?"
"""A part that cannot be compared with anything."""

_FORMAT: Final = 2
_MOST_PARTS: Final = 256
_MOST_ENTRIES: Final = 32


@dataclass(frozen=True, slots=True)
class FunctionFingerprint:
    """
    What a function was when this was taken.

    Args:
        name: the function's name, for people.
        parts: by a readable name, such as "the argument model", what stands for that part: a short
            plain value itself, of anything else a digest or the name of its type.
    """

    name: str
    parts: Mapping[str, str]

    @property
    def is_known(self) -> bool:
        """Whether there is anything to compare the function's code by."""
        return self.parts.get(_CODE, UNKNOWN) != UNKNOWN

    def to_json(self) -> str:
        """Return the fingerprint as text."""
        return json.dumps([_FORMAT, self.name, dict(self.parts)], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FunctionFingerprint:
        """
        Return the fingerprint that was written; of another version of ours, an unknown one.

        Raises:
            ValueError: it is no fingerprint.
        """
        try:
            version, name, parts = json.loads(text)
            known = parts.items() if version == _FORMAT else ()
            return cls(str(name), {str(part): str(value) for part, value in known})
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not a fingerprint: {text!r:.100}") from error


_CODE: Final = "the code"


def fingerprint_of(function: Callable[..., object]) -> FunctionFingerprint:
    """
    Return the fingerprint of a function, method, partial, callable object or class.

    Of an object, those plain attributes count that its constructor sets: a number that its other
    methods set too is a counter, and a list that is no argument of the constructor is a memory.
    Nor does a list count that the function itself changes.
    """
    walk = _Walk()
    try:
        walk.root(function)
    except Exception:  # whatever a foreign object can do: half a walk is not compared
        return FunctionFingerprint(walk.name, {_CODE: UNKNOWN})
    return FunctionFingerprint(walk.name, walk.parts)


def differences(before: FunctionFingerprint, after: FunctionFingerprint) -> list[str]:
    """Say what differs between two fingerprints; what cannot be compared does not."""
    same_code = _compared(before.parts.get(_CODE, UNKNOWN), after.parts.get(_CODE, UNKNOWN))
    found = []
    for part in {**before.parts, **after.parts}:
        one, other = before.parts.get(part), after.parts.get(part)
        if one is not None and other is not None:
            if _compared(one, other) is False:
                named = f"{_CODE} of {after.name!r}" if part == _CODE else part
                found.append(named + _change(one, other))
        elif same_code:  # other code has other parts
            found.append(f"{part}{' is new' if one is None else ' is gone'}")
    return found


def _compared(one: str, other: str) -> bool | None:
    """Return whether two parts are the same, or None where nobody can tell."""
    schemes = [part.partition(":")[0] for part in (one, other)]
    if UNKNOWN in schemes:
        return None
    codes = [scheme for scheme in schemes if scheme == "source" or scheme.startswith("bytecode-")]
    if codes and schemes[0] != schemes[1]:
        return None
    return one == other


def _change(one: str, other: str) -> str:
    """Return how a part has changed, as far as it may be shown."""
    kinds = ("value:", "type:", "name:")
    if not (one.startswith(kinds) and other.startswith(kinds)):
        return ""
    return f": {one.partition(':')[2]} -> {other.partition(':')[2]}"


class _Walk:
    """
    Goes from a function to all that it works with, and notes each part once.

    Only the interpreter's own descriptors are asked: nothing that a class of the user's defines,
    such as `__getattr__` or a property, is run.

    Attributes:
        parts: what was noted.
        name: the name of the function whose code came first: the root's.
    """

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.name = ""
        self._sources = Sources()
        self._seen: set[tuple[int, int]] = set()
        self._globals: list[tuple[dict[str, Any], str]] = []
        self._volatile: dict[int, set[str]] = {}

    def root(self, function: object) -> None:
        """Note a function and all that it works with."""
        self._called(function)
        # Last, when it is known which of them any of the functions changes.
        for module, name in self._globals:
            volatile = self._volatile[id(module)]
            self._value(f"the global {name}", name, module[name], volatile)
        self.parts.setdefault(_CODE, UNKNOWN)

    # ── what can be called ──────────────────────────────────────────────────────────────────

    def _called(self, function: Any, owner: type | None = None) -> None:
        """Note what is called: its code first, then what that works with."""
        kind = type(function)
        if is_a(function, FunctionType):
            self._function(function, owner)
        elif issubclass(kind, partial):
            self._partial(function)
        elif issubclass(kind, MethodType):
            self._method(function.__func__, function.__self__)
        elif issubclass(kind, staticmethod | classmethod):
            self._called(function.__func__, owner)
        elif issubclass(kind, property | cached_property):
            getter = function.fget if issubclass(kind, property) else function.func
            self._called(getter, owner)
        elif issubclass(kind, type):
            self._class(function)
        elif issubclass(kind, NATIVE):
            self._code(name_of(function), f"name:{name_of(function)}")
            if (bound := bound_to(function)) is not None:
                self._value("the object", "", bound)
        else:
            self._object(function)

    def _function(self, function: FunctionType, owner: type | None) -> None:
        """Note a function: its code, its defaults, its closure, and the globals that it reads."""
        if not self._is_new(function, owner):
            return
        if (wrapped := function.__dict__.get("__wrapped__")) is not None:
            self._called(wrapped, owner)
        code, cells = function.__code__, function.__closure__ or ()
        if is_library(code.co_filename):
            # A decorator of others: what counts is what it decorates.
            for content in filter(_is_function, map(_content, cells)):
                self._called(content)
            if _CODE not in self.parts:
                self._code(code.co_qualname, f"name:{name_of(function)}")
            return
        node, names = self._sources.node_of(function), names_in(code)
        self._code(
            code.co_qualname, digest_of_bytecode(code) if node is None else digest_of_source(node)
        )
        volatile = names.rebound | (changed_in_place(node) if node else {_ANY})
        self._values("the default", _defaults(function), volatile)
        contents = dict(zip(code.co_freevars, map(_content, cells), strict=False))
        self._values("the closure's", contents, volatile)
        if owner is not None:
            self._members_read(names.attributes, owner)
        self._read_globals(function, names.globals, volatile)

    def _read_globals(self, function: FunctionType, names: set[str], volatile: set[str]) -> None:
        """Note the functions of a function's own module that it reads; put other globals off."""
        module = function.__globals__
        self._volatile.setdefault(id(module), set()).update(volatile)
        for name in sorted(names & module.keys()):
            if name.startswith("__"):  # __file__ and its like: where it is, not what it does
                continue
            value = module[name]
            inner = value
            for _ in range(DEEPEST):
                inner = (
                    inner.__dict__.get("__wrapped__", inner) if is_a(inner, FunctionType) else inner
                )
            if is_a(inner, FunctionType):
                if inner.__globals__ is module:
                    self._called(value)
            elif not is_a(value, (ModuleType, type)) and self._is_new(module, name):
                self._globals.append((module, name))

    def _partial(self, bound: object) -> None:
        """Note a partial: its function, and its arguments by the function's names for them."""
        if not self._is_new(bound, None):
            return
        function, arguments, keywords = members_of(partial, bound, "func", "args", "keywords")
        self._called(function)
        inner = function.__func__ if is_a(function, MethodType) else function
        names: tuple[str, ...] = ()
        volatile = {_ANY}
        if is_a(inner, FunctionType):
            code = inner.__code__
            names = code.co_varnames[inner is not function : code.co_argcount]
            if (node := self._sources.node_of(inner)) is not None:
                volatile = changed_in_place(node)
        numbered = [*names, *map(str, range(len(names) + 1, len(arguments) + 1))]
        given = dict(zip(numbered, arguments, strict=False))
        self._values("the argument", {**given, **keywords}, volatile)

    def _method(self, function: object, owner: object) -> None:
        """Note a method, and the settings of its object."""
        if is_a(owner, type):
            self._called(function, owner)
            self._put("the class", f"type:{qualname(owner)}")
        else:
            self._called(function, type(owner))
            self._whole("the class", owner, 0)

    def _class(self, cls: type) -> None:
        """Note a class that is called: its constructors."""
        found = [static_member(cls, name) for name in CONSTRUCTORS]
        own = [function for function in found if is_a(function, (FunctionType, staticmethod))]
        for function in own:
            self._called(function, cls)
        if not own:
            self._code(qualname(cls), f"name:{name_of(cls)}")

    def _object(self, value: object) -> None:
        """Note an object that is called: its `__call__`, what it wraps, and its settings."""
        kind = type(value)
        if (wrapped := attributes_of(value).get("__wrapped__")) is not None:
            self._called(wrapped)
        call = static_member(kind, "__call__")
        if not is_library_class(kind) and is_a(call, FunctionType):
            self._called(call, kind)
        elif _CODE not in self.parts:
            self._code(qualname(kind), f"name:{name_of(kind)}")
        self._whole("the class", value, 0)

    def _members_read(self, names: set[str], owner: type) -> None:
        """Note the methods, properties and constants of its class that a method reads."""
        later = set_by_methods(owner)
        for name in sorted(names):
            cls = next((one for one in own_classes(owner) if name in vars_of(one)), None)
            member = None if cls is None else vars_of(cls)[name]
            if is_a(member, (FunctionType, staticmethod, classmethod, property, cached_property)):
                self._called(member, owner)
            elif cls is not None and name not in later and self._is_new(cls, name):
                label = f"the class attribute {name} of {qualname(cls)}"
                if not is_a(member, (MemberDescriptorType, GetSetDescriptorType)):
                    self._value(label, name, member, {_ANY})

    # ── values ──────────────────────────────────────────────────────────────────────────────

    def _values(self, what: str, values: Mapping[str, object], volatile: set[str]) -> None:
        """Note values by their names."""
        for name, value in values.items():
            self._value(f"{what} {name}", name, value, volatile)

    def _value(
        self,
        label: str,
        name: str,
        value: object,
        volatile: set[str] | tuple[()] = (),
        depth: int = 0,
    ) -> None:
        """
        Note a value: plain data as it is, a function by its code, an object by its settings.

        Args:
            label: what the part is called.
            name: the value's own name, which may say that it is a secret.
            value: the value.
            volatile: the names whose values are changed by code; _ANY: nobody knows which.
            depth: how many objects lie around it.
        """
        is_mutable = is_a(value, MUTABLE)
        if (name in volatile and (is_mutable or is_number(value))) or (
            is_mutable and _ANY in volatile
        ):
            self._put(label, UNKNOWN)
            return
        try:
            part = shown(name, value)
        except NotPlain:
            self._compound(label, value, depth)
        except Exception:  # a foreign object that looked like plain data
            self._put(label, UNKNOWN)
        else:
            self._put(label, part)

    def _compound(self, label: str, value: object, depth: int) -> None:
        """Note a value that is no plain data: a container, a function, or another object."""
        kind = type(value)
        if _is_function(value):
            self._called(value)
        elif is_a(value, CONTAINERS):
            self._put(label, UNKNOWN)
            for entry in filter(_is_function, islice(entries(value), _MOST_ENTRIES)):
                self._compound(label, entry, depth + 1)
        elif depth and not is_record(kind):
            self._put(label, f"type:{qualname(kind)}")  # an object within an object
        else:
            self._whole(label, value, depth)
            call = static_member(kind, "__call__")
            if is_a(call, FunctionType) and not is_library_class(kind):
                self._called(call, kind)

    def _whole(self, label: str, value: object, depth: int) -> None:
        """Note an object: its class and its settings."""
        kind = type(value)
        self._put(label, f"type:{qualname(kind)}")
        if depth > DEEPEST or not self._is_new(value, None):
            return
        settings = sorted(settings_of(value).items())
        for name, setting in settings:
            self._value(f"the setting {name} of {qualname(kind)}", name, setting, (), depth + 1)

    # ── notes ───────────────────────────────────────────────────────────────────────────────

    def _code(self, name: str, code: str) -> None:
        """Note some code; the first is that of the root."""
        short = name.rpartition("<locals>.")[2]
        if _CODE not in self.parts:
            self.name = short
            self.parts[_CODE] = code
        else:
            self._put(f"{_CODE} of {short!r}", code)

    def _put(self, label: str, value: str) -> None:
        """Note a part, under a name of its own."""
        if len(self.parts) >= _MOST_PARTS:
            return
        number, unique = 1, label
        while unique in self.parts:
            number += 1
            unique = f"{label} ({number})"
        self.parts[unique] = value

    def _is_new(self, thing: object, about: object) -> bool:
        """Return whether something is met for the first time; circles end here."""
        met = id(thing), hash(about) if is_a(about, str) else id(about)
        is_new = met not in self._seen
        self._seen.add(met)
        return is_new and len(self.parts) < _MOST_PARTS


_ANY: Final = ""
"""Stands among volatile names for all that can be changed in place."""


def _defaults(function: FunctionType) -> dict[str, object]:
    """Return the defaults of a function by the names of its arguments."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(names, values, strict=False)), **(function.__kwdefaults__ or {})}


def _content(cell: CellType) -> object:
    """Return what a cell of a closure holds; nothing yet is None."""
    try:
        content: object = cell.cell_contents
    except ValueError:
        return None
    return content


def _is_function(value: object) -> bool:
    """Return whether a value is a function of any sort."""
    return is_a(value, (FunctionType, MethodType, partial, staticmethod, classmethod))
