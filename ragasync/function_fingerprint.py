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
from functools import cached_property, lru_cache, partial
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
    ANY,
    Changes,
    Names,
    Sources,
    changed_in_place,
    digest,
    digest_of_bytecode,
    digest_of_source,
    names_in,
    set_to_nothing,
)
from ragasync.object_settings import (
    CONSTRUCTORS,
    MUTABLE,
    NATIVE,
    attributes_of,
    bound_to,
    is_library,
    is_library_class,
    is_native_class,
    is_runtime,
    members_of,
    module_of,
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

_FORMAT: Final = 3
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

    def digest(self) -> str:
        """
        Return the fingerprint as a short text, for `is_same_digest`.

        It has three digests, of the values, of the code whose source is known, and of other code,
        which only the same Python can compare; and it says whether there is code of C besides.
        """
        kinds: dict[str, list[tuple[str, str]]] = {}
        is_whole = bool(self.parts)
        for label, part in sorted(self.parts.items()):
            scheme = part.partition(":")[0]
            is_whole &= scheme != "native" and (label, part) != (_CODE, UNKNOWN)
            if part != UNKNOWN:
                is_code = scheme == "source" or scheme.startswith("bytecode-")
                kinds.setdefault(scheme if is_code else "value", []).append((label, part))
        texts = [f"{kind}:{digest(repr(found))}" for kind, found in sorted(kinds.items())]
        return " ".join([*texts, *([] if is_whole else [UNKNOWN])])

    def without_code(self) -> FunctionFingerprint:
        """Return the values alone."""
        return self.keeping(lambda part: not part.startswith(_CODE))

    def without_unknown(self) -> FunctionFingerprint:
        """Return the parts that every Python can compare."""
        unknown = ("bytecode-", "native:", UNKNOWN)
        known = {label: part for label, part in self.parts.items() if not part.startswith(unknown)}
        return FunctionFingerprint(self.name, known)

    def keeping(self, is_kept: Callable[[str], bool]) -> FunctionFingerprint:
        """Return the parts whose names pass."""
        kept = {label: part for label, part in self.parts.items() if is_kept(label)}
        return FunctionFingerprint(self.name, kept)

    def with_value(self, label: str, value: object) -> FunctionFingerprint:
        """Return the fingerprint with one more plain value."""
        return FunctionFingerprint(self.name, {**self.parts, label: shown(label, value)})

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


def fingerprint_of(
    function: Callable[..., object],
    *,
    is_left_out: Callable[[str], bool] = lambda _: False,
    sources: Sources | None = None,
) -> FunctionFingerprint:
    """
    Return the fingerprint of a function, method, partial, callable object or class.

    Of an object, those plain attributes count that its constructor sets: a number that other code
    sets too is a counter; a list or dict that other code changes, or that begins empty and is no
    argument, is a memory.

    Args:
        function: what is called.
        is_left_out: says of the name of a value that it does not count.
        sources: the files that were read already.
    """
    return _taken(function, _Walk(sources or Sources(), is_left_out))


def settings_fingerprint_of(
    function: Callable[..., object],
    *,
    is_left_out: Callable[[str], bool] = lambda _: False,
    sources: Sources | None = None,
) -> FunctionFingerprint:
    """
    Return the fingerprint of what a function was made with, whatever its code is.

    That is defaults, closure, the arguments of partials, and the settings of objects.

    Args:
        function: what is called.
        is_left_out: says of the name of a value that it does not count.
        sources: the files that were read already.
    """
    return _taken(function, _Walk(sources or Sources(), is_left_out, with_code=False))


def _taken(function: Callable[..., object], walk: _Walk) -> FunctionFingerprint:
    """Return what a walk finds; of half a walk, that nothing can be compared."""
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


@lru_cache(maxsize=256)
def is_same_digest(one: str, other: str) -> bool | None:
    """Return whether two digests are of the same function, or None where nobody can tell."""
    before, after = (dict(_split(part) for part in text.split()) for text in (one, other))
    values, sources = (before.get(kind) == after.get(kind) for kind in ("value", "source"))
    bytecodes = [
        {kind for kind in found if kind.startswith("bytecode")} for found in (before, after)
    ]
    if bool(bytecodes[0]) != bool(bytecodes[1]) and not sources:
        return None  # source against bytecode, which tell different things of values too
    if not (values and sources):
        return False
    if bytecodes[0] != bytecodes[1] or UNKNOWN in {*before, *after}:
        return None
    return before == after


def _split(part: str) -> tuple[str, str]:
    """Return the kind and the digest of one part of a short fingerprint."""
    kind, _, found = part.partition(":")
    return kind, found


def _compared(one: str, other: str) -> bool | None:
    """Return whether two parts are the same, or None where nobody can tell."""
    schemes = [part.partition(":")[0] for part in (one, other)]
    if UNKNOWN in schemes or (one == other and schemes[0] == "native"):
        return None
    codes = [scheme for scheme in schemes if scheme == "source" or scheme.startswith("bytecode-")]
    if codes and schemes[0] != schemes[1]:
        return None
    return one == other


def _change(one: str, other: str) -> str:
    """Return how a part has changed, as far as it may be shown."""
    kinds = ("value:", "type:", "name:", "native:")
    if not (one.startswith(kinds) and other.startswith(kinds)):
        return ""
    return f": {one.partition(':')[2]} -> {other.partition(':')[2]}"


_NOTHING: Final = Changes()


class _Walk:
    """
    Goes from a function to all that it works with, and notes each part once.

    Only the interpreter's own descriptors are asked: nothing that a class of the user's defines,
    such as `__getattr__` or a property, is run. Global values and the settings of objects come
    last, when it is known which of them any of the functions changes.

    Args:
        sources: the files that were read already.
        is_left_out: says of the name of a value that it does not count.
        with_code: whether code counts; else only the values that the function was made with.

    Attributes:
        parts: what was noted.
        name: the name of the function whose code came first: the root's.
    """

    def __init__(
        self, sources: Sources, is_left_out: Callable[[str], bool], *, with_code: bool = True
    ) -> None:
        self.parts: dict[str, str] = {}
        self.name = ""
        self._with_code, self._is_left_out = with_code, is_left_out
        self._sources = sources
        self._seen: set[tuple[int, int]] = set()
        self._globals: list[tuple[dict[str, Any], str]] = []
        self._objects: list[tuple[object, int]] = []
        self._volatile: dict[int, Changes] = {}
        self._read: set[str] = set()
        self._stored: set[str] = set()
        self._changed: set[str] = set()

    def root(self, function: object) -> None:
        """Note a function and all that it works with."""
        self._called(function)
        while self._globals or self._objects:
            if self._globals:
                module, name = self._globals.pop(0)
                volatile = self._volatile[id(module)]
                self._values("the global", {name: module[name]}, volatile)
            else:
                self._settings(*self._objects.pop(0))
        if self._with_code:
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
        elif kind is _CACHED:
            self._called(attributes_of(function).get("__wrapped__"), owner)
        elif issubclass(kind, NATIVE):
            self._code(name_of(function), f"native:{name_of(function)}")
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
        changed = changed_in_place(node)
        changed.rebound |= names.rebound
        if code.co_name not in CONSTRUCTORS:
            self._stored |= names.stored
            self._changed |= changed.attributes
        self._read |= names.attributes
        if self._with_code or owner is None:
            self._values("the default", _defaults(function), changed)
        contents = dict(zip(code.co_freevars, map(_content, cells), strict=False))
        self._values("the closure's", contents, changed)
        if self._with_code:
            if owner is not None:
                self._members_read(names.attributes, owner, with_bases="super" in names.globals)
            self._read_globals(function, names, changed)

    def _read_globals(self, function: FunctionType, names: Names, changed: Changes) -> None:
        """Note the functions of a function's own module that it reads; put other globals off."""
        module = function.__globals__
        self._volatile.setdefault(id(module), Changes()).add(changed)
        for name in sorted(names.globals & module.keys()):
            if name.startswith("__"):  # __file__ and its like: where it is, not what it does
                continue
            value = module[name]
            inner = _unwrapped(value)
            if is_a(inner, FunctionType):
                if inner.__globals__ is module:
                    self._called(value)
            elif is_a(value, type):
                if module_of(value) == module.get("__name__") and not is_library_class(value):
                    self._called(value)
                    self._members_read(names.attributes, value)
            elif not is_a(value, ModuleType) and self._is_new(module, name):
                self._globals.append((module, name))

    def _partial(self, bound: object) -> None:
        """Note a partial: its function, and its arguments by the function's names for them."""
        if not self._is_new(bound, None):
            return
        function, arguments, keywords = members_of(partial, bound, "func", "args", "keywords")
        self._called(function)
        inner = function.__func__ if is_a(function, MethodType) else function
        names: tuple[str, ...] = ()
        changed = Changes({ANY})
        if is_a(inner, FunctionType):
            code = inner.__code__
            names = code.co_varnames[inner is not function : code.co_argcount]
            changed = changed_in_place(self._sources.node_of(inner))
        numbered = [*names, *map(str, range(len(names) + 1, len(arguments) + 1))]
        given = dict(zip(numbered, arguments, strict=False))
        self._values("the argument", {**given, **keywords}, changed)

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
            scheme = "native" if is_native_class(cls) else "name"
            self._code(qualname(cls), f"{scheme}:{name_of(cls)}")

    def _object(self, value: object) -> None:
        """Note an object that is called: its `__call__`, what it wraps, and its settings."""
        kind = type(value)
        if (wrapped := attributes_of(value).get("__wrapped__")) is not None:
            self._called(wrapped)
        call = static_member(kind, "__call__")
        if not is_library_class(kind) and is_a(call, FunctionType):
            self._called(call, kind)
        elif _CODE not in self.parts:
            scheme = "name" if is_a(call, FunctionType) else "native"
            self._code(qualname(kind), f"{scheme}:{name_of(kind)}")
        self._whole("the class", value, 0)

    def _members_read(self, names: set[str], owner: type, *, with_bases: bool = False) -> None:
        """
        Note the methods, properties and constants of its class that a method reads.

        Args:
            names: the attributes that it reads.
            owner: the class.
            with_bases: whether it may also read what the class has overridden.
        """
        later = set_by_methods(owner) | self._stored
        self._note_changes_by(owner)
        for name in sorted(names):
            classes = [one for one in own_classes(owner) if name in vars_of(one)]
            for cls in classes if with_bases else classes[:1]:
                member = vars_of(cls)[name]
                if _is_function(member) or is_a(member, (property, cached_property)):
                    self._called(member, owner)
                elif name not in later and self._is_new(cls, name):
                    label = f"the class attribute {name} of {qualname(cls)}"
                    if not is_a(member, (MemberDescriptorType, GetSetDescriptorType)):
                        self._value(label, name, member, Changes(self._changed))

    # ── values ──────────────────────────────────────────────────────────────────────────────

    def _values(self, what: str, values: Mapping[str, object], changed: Changes) -> None:
        """Note values by their names."""
        for name, value in values.items():
            if _is_function(value) or not self._is_left_out(name):
                self._value(f"{what} {name}", name, value, changed)

    def _value(
        self,
        label: str,
        name: str,
        value: object,
        changed: Changes = _NOTHING,
        depth: int = 0,
    ) -> None:
        """
        Note a value: plain data as it is, a function by its code, an object by its settings.

        Args:
            label: what the part is called.
            name: the value's own name, which may say that it is a secret.
            value: the value.
            changed: what code changes, by name.
            depth: how many objects lie around it.
        """
        is_changed = is_a(value, MUTABLE) and not changed.names.isdisjoint({name, ANY})
        if is_changed or name in changed.rebound:
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
            self._entries(label, value, depth)
        elif is_runtime(kind):
            self._put(label, f"type:{qualname(kind)}")
        else:
            self._whole(label, value, depth)
            call = static_member(kind, "__call__")
            if self._with_code and is_a(call, FunctionType) and not is_library_class(kind):
                self._called(call, kind)

    def _entries(self, label: str, container: object, depth: int) -> None:
        """Note the entries of a container that is no plain data, one by one."""
        if depth > DEEPEST or not self._is_new(container, None):
            return
        for key, entry in islice(entries(container), _MOST_ENTRIES):
            try:
                place = shown("entry", key).partition(":")[2]
            except Exception:  # no plain key, or a foreign one
                place = UNKNOWN
            if _is_function(entry):
                self._put(f"{label}[{place}]", f"name:{getattr(entry, '__name__', UNKNOWN)}")
            self._value(f"{label}[{place}]", place, entry, depth=depth + 1)

    def _whole(self, label: str, value: object, depth: int) -> None:
        """Note an object: its class, and later its settings."""
        self._put(label, f"type:{qualname(type(value))}")
        if depth <= DEEPEST and self._is_new(value, None):
            self._objects.append((value, depth))

    def _settings(self, value: object, depth: int) -> None:
        """Note the settings of an object, and of its methods those that any code reads."""
        kind = type(value)
        begins_empty = self._note_changes_by(kind)
        if self._with_code:
            self._members_read(set(self._read), kind)
        found = settings_of(value, self._stored, self._changed, begins_empty)
        for name, setting in sorted(found.items()):
            if _is_function(setting) or not self._is_left_out(name):
                label = f"the setting {name} of {qualname(kind)}"
                self._value(label, name, setting, depth=depth + 1)

    def _note_changes_by(self, cls: type) -> set[str]:
        """Note the attributes that methods set or change; return those that begin empty."""
        begin_empty: set[str] = set()
        for one in own_classes(cls):
            for name, member in vars_of(one).items():
                if not is_a(member, FunctionType):
                    continue
                node = self._sources.node_of(member)
                if name in CONSTRUCTORS:
                    begin_empty |= set() if node is None else set_to_nothing(node)
                elif name != "__setstate__":
                    self._stored |= names_in(member.__code__).stored
                    if node is not None or not name.startswith("__"):  # as a dataclass's own
                        self._changed |= changed_in_place(node).attributes
        return begin_empty

    # ── notes ───────────────────────────────────────────────────────────────────────────────

    def _code(self, name: str, code: str) -> None:
        """Note some code; the first is that of the root."""
        short = name.rpartition("<locals>.")[2]
        self.name = self.name or short
        if not self._with_code:
            return
        if _CODE not in self.parts:
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


_CACHED: Final = type(lru_cache(len))
"""What `functools.lru_cache` makes of a function."""


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


def _unwrapped(value: object) -> object:
    """Return the function that decorators have wrapped, as far as they say so."""
    for _ in range(DEEPEST):
        if not is_a(value, (FunctionType, _CACHED)):
            break
        value = attributes_of(value).get("__wrapped__", value)
    return value


def _is_function(value: object) -> bool:
    """Return whether a value is a function of any sort."""
    return is_a(value, (FunctionType, MethodType, partial, staticmethod, classmethod, _CACHED))
