"""The walk from a function to the code and values of its fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

from ragasync._function_fingerprint.code import (
    ANY,
    Changes,
    Names,
    Sources,
    changed_in_place,
    digest_of_bytecode,
    digest_of_source,
    names_in,
    set_to_nothing,
)
from ragasync._function_fingerprint.fingerprint import CODE, UNKNOWN, FunctionFingerprint
from ragasync._function_fingerprint.values import (
    CONSTRUCTORS,
    CONTAINERS,
    DEEPEST,
    MUTABLE,
    NATIVE,
    NotPlain,
    attributes_of,
    bound_to,
    entries,
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
    shown,
    static_member,
    vars_of,
)
from ragasync.foreign_errors import is_a

_MOST_PARTS: Final = 256
_MOST_ENTRIES: Final = 32


def fingerprint_of(
    function: Callable[..., object],
    *,
    is_left_out: Callable[[str], bool] = lambda _: False,
    sources: Sources | None = None,
    with_code: bool = True,
) -> FunctionFingerprint:
    """
    Take the fingerprint of a function, method, partial, callable object or class.

    For an object, the attributes that its constructor sets count. A number that other code sets too
    is a counter; a list or dict that other code changes, or that is empty at first and not an
    argument, is state; both are left out.

    Args:
        function: the callable.
        is_left_out: whether the value of this name is left out.
        sources: files that have been read already.
        with_code: whether its code counts, and not only its settings: defaults, closures, the
            arguments of partials, and the settings of objects.
    """
    walk = _Walk(sources or Sources(), is_left_out, with_code=with_code)
    try:
        walk.root(function)
    except Exception:  # foreign objects may raise anything, and a partial walk must not be compared
        return FunctionFingerprint(walk.name, {CODE: UNKNOWN})
    return FunctionFingerprint(walk.name, walk.parts)


_NOTHING: Final = Changes()


class _Walk:
    """
    Walks from a function to the code and values that it works with, and records each part once.

    Global values and the settings of objects come last, when it is known which of them any of the
    functions changes.

    Attributes:
        parts: the recorded parts.
        name: the name of the function that the walk started from.
    """

    def __init__(
        self, sources: Sources, is_left_out: Callable[[str], bool], *, with_code: bool
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
        """Record a function and everything that it works with."""
        self._called(function)
        while self._globals or self._objects:
            if self._globals:
                module, name = self._globals.pop(0)
                volatile = self._volatile[id(module)]
                self._values("the global", {name: module[name]}, volatile)
            else:
                self._settings(*self._objects.pop(0))
        if self._with_code:
            self.parts.setdefault(CODE, UNKNOWN)

    # ── callables ───────────────────────────────────────────────────────────────────────────

    def _called(self, function: Any, owner: type | None = None) -> None:
        """Record a callable: its code first, then the values that it works with."""
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
        """Record a function: its code, defaults, closure, and the globals that it reads."""
        if not self._is_new(function, owner):
            return
        if (wrapped := function.__dict__.get("__wrapped__")) is not None:
            self._called(wrapped, owner)
        code, cells = function.__code__, function.__closure__ or ()
        if is_library(code.co_filename):
            # The decorator of a library: the function that it decorates counts.
            for content in filter(_is_function, map(_content, cells)):
                self._called(content)
            if CODE not in self.parts:
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
        """Record functions of the same module that a function reads; queue other globals."""
        module = function.__globals__
        self._volatile.setdefault(id(module), Changes()).add(changed)
        for name in sorted(names.globals & module.keys()):
            if name.startswith("__"):  # such as __file__: does not affect what it does
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
        """Record a partial: its function, and its arguments by the function's names for them."""
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
        """Record a method, and the settings of its object."""
        if is_a(owner, type):
            self._called(function, owner)
            self._put("the class", f"type:{qualname(owner)}")
        else:
            self._called(function, type(owner))
            self._whole("the class", owner, 0)

    def _class(self, cls: type) -> None:
        """Record a class that is called: its constructors."""
        found = [static_member(cls, name) for name in CONSTRUCTORS]
        own = [function for function in found if is_a(function, (FunctionType, staticmethod))]
        for function in own:
            self._called(function, cls)
        if not own:
            scheme = "native" if is_native_class(cls) else "name"
            self._code(qualname(cls), f"{scheme}:{name_of(cls)}")

    def _object(self, value: object) -> None:
        """Record a callable object: its `__call__`, its wrapped function, and its settings."""
        kind = type(value)
        if (wrapped := attributes_of(value).get("__wrapped__")) is not None:
            self._called(wrapped)
        call = static_member(kind, "__call__")
        if not is_library_class(kind) and is_a(call, FunctionType):
            self._called(call, kind)
        elif CODE not in self.parts:
            scheme = "name" if is_a(call, FunctionType) else "native"
            self._code(qualname(kind), f"{scheme}:{name_of(kind)}")
        self._whole("the class", value, 0)

    def _members_read(self, names: set[str], owner: type, *, with_bases: bool = False) -> None:
        """
        Record the methods, properties and constants of its class that a method reads.

        With `with_bases`, it may also read attributes that subclasses override.
        """
        later = set_by_methods(owner) | self._stored
        self._collect_changes(owner)
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
        """Record values by name."""
        for name, value in values.items():
            if _is_function(value) or not self._is_left_out(name):
                self._value(f"{what} {name}", name, value, changed)

    def _value(
        self, label: str, name: str, value: object, changed: Changes = _NOTHING, depth: int = 0
    ) -> None:
        """
        Record a value: plain data as it is, a function by its code, an object by its settings.
        """
        is_changed = is_a(value, MUTABLE) and not changed.names.isdisjoint({name, ANY})
        if is_changed or name in changed.rebound:
            self._put(label, UNKNOWN)
            return
        try:
            part = shown(name, value)
        except NotPlain:
            self._compound(label, value, depth)
        except Exception:  # a foreign object that looks like plain data
            self._put(label, UNKNOWN)
        else:
            self._put(label, part)

    def _compound(self, label: str, value: object, depth: int) -> None:
        """Record a value that is not plain data: a container, a function, or another object."""
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
        """Record the entries of a container that is not plain data, one by one."""
        if depth > DEEPEST or not self._is_new(container, None):
            return
        for key, entry in islice(entries(container), _MOST_ENTRIES):
            try:
                place = shown("entry", key).partition(":")[2]
            except Exception:  # a key that is not plain data, or foreign
                place = UNKNOWN
            if _is_function(entry):
                self._put(f"{label}[{place}]", f"name:{getattr(entry, '__name__', UNKNOWN)}")
            self._value(f"{label}[{place}]", place, entry, depth=depth + 1)

    def _whole(self, label: str, value: object, depth: int) -> None:
        """Record an object: its class now, its settings at the end of the walk."""
        self._put(label, f"type:{qualname(type(value))}")
        if depth <= DEEPEST and self._is_new(value, None):
            self._objects.append((value, depth))

    def _settings(self, value: object, depth: int) -> None:
        """Record the settings of an object, and those of its methods that any code reads."""
        kind = type(value)
        begins_empty = self._collect_changes(kind)
        if self._with_code:
            self._members_read(set(self._read), kind)
        found = settings_of(value, self._stored, self._changed, begins_empty)
        for name, setting in sorted(found.items()):
            if _is_function(setting) or not self._is_left_out(name):
                label = f"the setting {name} of {qualname(kind)}"
                self._value(label, name, setting, depth=depth + 1)

    def _collect_changes(self, cls: type) -> set[str]:
        """Collect attributes that methods set or change, and get those that are empty at first."""
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
                    if node is not None or not name.startswith(
                        "__"
                    ):  # generated, as in a dataclass
                        self._changed |= changed_in_place(node).attributes
        return begin_empty

    # ── parts ───────────────────────────────────────────────────────────────────────────────

    def _code(self, name: str, code: str) -> None:
        """Record some code; the first is that of the root."""
        short = name.rpartition("<locals>.")[2]
        self.name = self.name or short
        if not self._with_code:
            return
        if CODE not in self.parts:
            self.parts[CODE] = code
        else:
            self._put(f"{CODE} of {short!r}", code)

    def _put(self, label: str, value: str) -> None:
        """Record a part, under a unique name."""
        if len(self.parts) >= _MOST_PARTS:
            return
        number, unique = 1, label
        while unique in self.parts:
            number += 1
            unique = f"{label} ({number})"
        self.parts[unique] = value

    def _is_new(self, thing: object, about: object) -> bool:
        """Whether an object is new to the walk; cycles end here."""
        met = id(thing), hash(about) if is_a(about, str) else id(about)
        is_new = met not in self._seen
        self._seen.add(met)
        return is_new and len(self.parts) < _MOST_PARTS


_CACHED: Final = type(lru_cache(len))
"""Type of a function with `functools.lru_cache`."""


def _defaults(function: FunctionType) -> dict[str, object]:
    """Defaults of a function by argument name."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(names, values, strict=False)), **(function.__kwdefaults__ or {})}


def _content(cell: CellType) -> object:
    """Content of a closure's cell; None if it is still empty."""
    try:
        content: object = cell.cell_contents
    except ValueError:
        return None
    return content


def _unwrapped(value: object) -> object:
    """The innermost function of decorators that set `__wrapped__`."""
    for _ in range(DEEPEST):
        if not is_a(value, (FunctionType, _CACHED)):
            break
        value = attributes_of(value).get("__wrapped__", value)
    return value


def _is_function(value: object) -> bool:
    """Whether a value is a function, method, partial or similar."""
    return is_a(value, (FunctionType, MethodType, partial, staticmethod, classmethod, _CACHED))
