"""
What an object is made of, asked of the interpreter alone.

Nothing that a class of the user's defines is run, such as `__getattr__`, `__class__` or a property.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any, Final

from ragasync.foreign_errors import is_a
from ragasync.function_code import ANY, names_in

NATIVE: Final = (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
"""The functions of C."""

MUTABLE: Final = (list, dict, set, bytearray)
"""What changes in place."""

CONSTRUCTORS: Final = ("__new__", "__init__", "__post_init__")
"""The methods that make an object."""

_RUNTIME: Final = frozenset(
    """asyncio concurrent contextvars http io logging multiprocessing queue random selectors socket
    sqlite3 ssl subprocess tempfile thread threading time weakref""".split()  # noqa: SIM905
)
_HEAP_TYPE: Final = 1 << 9
_OURS: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120
_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120


def settings_of(
    value: object, stored: set[str], changed: set[str], begin_empty: set[str]
) -> dict[str, object]:
    """
    Return those attributes of an object that are settings, not what it has come to since.

    An argument of the constructor is one, if it is no number that code sets: that is a counter. Of
    other attributes those are that nobody else sets. What changes in place is none if code changes
    it, or if it begins empty. Of the classes of libraries only the arguments are known.

    Args:
        value: the object.
        stored: the attributes that code sets after the constructor has, of whatever object.
        changed: those whose content it changes in place; ANY: nobody knows which.
        begin_empty: those that the constructor sets to something empty.
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
        if is_a(static_member(kind, name), cached_property):  # what that has come to
            continue
        if is_mutable and not changed.isdisjoint({name, ANY}):
            continue
        if bare in arguments:
            found[bare] = setting
        elif not (is_closed or name in stored or (is_mutable and name in begin_empty)):
            found[name] = setting
    return found


def _arguments_of(cls: type) -> set[str]:
    """Return the names that a class's constructors take, and its annotated fields."""
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
    """Return the attributes that a class's methods set after its constructors have."""
    names: set[str] = set()
    for one in own_classes(cls):
        for name, member in vars_of(one).items():
            if is_a(member, FunctionType) and name not in (*CONSTRUCTORS, "__setstate__"):
                names |= names_in(member.__code__).stored
    return names


def attributes_of(value: object) -> dict[str, object]:
    """Return what an object has in its `__dict__` and its slots."""
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
    """Return a class and its bases, whatever its metaclass would say."""
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(cls)
    return found


def vars_of(cls: type) -> Mapping[str, Any]:
    """Return what a class itself defines."""
    found: Mapping[str, Any] = type.__dict__["__dict__"].__get__(cls)
    return found


def static_member(cls: type, name: str) -> object:
    """Return what a class has under a name, without binding it."""
    return next((vars_of(one)[name] for one in _mro(cls) if name in vars_of(one)), None)


def own_classes(cls: type) -> list[type]:
    """Return a class and its bases as far as the user wrote them."""
    return [one for one in _mro(cls) if not is_library_class(one)]


def members_of(cls: type, value: object, *names: str) -> tuple[Any, ...]:
    """Return attributes of an object by the descriptors of a class of C."""
    return tuple(vars_of(cls)[name].__get__(value) for name in names)


def is_library(filename: str) -> bool:
    """Return whether code is a library's: it is known by name, whatever version it has."""
    if "site-packages" in filename or "dist-packages" in filename:
        return True
    return filename.startswith((_OURS, _LIBRARY, "<frozen"))


def is_library_class(cls: type) -> bool:
    """Return whether a class is Python's own or a library's."""
    module = sys.modules.get(str(vars_of(cls).get("__module__", "")))
    if module is None or module.__name__ == "__main__":
        return module_of(cls) == "builtins"
    filename = vars(module).get("__file__")
    return not is_a(filename, str) or is_library(filename)


def _is_no_function(cls: type) -> bool:
    """Return whether a class of ours is about how calls are made, or where results go."""
    module = module_of(cls)
    if module.startswith("ragasync.documents."):
        return static_member(cls, "__call__") is None
    return module.startswith("ragasync.")


def is_runtime(cls: type) -> bool:
    """Return whether a class of Python's own is about how a program runs, such as a logger."""
    return module_of(cls).partition(".")[0].strip("_") in _RUNTIME


def is_native_class(cls: type) -> bool:
    """Return whether a class is written in C and built into Python or a module."""
    flags: int = type.__dict__["__flags__"].__get__(cls)
    return not flags & _HEAP_TYPE


def module_of(cls: type) -> str:
    """Return the name of the module that a class says it is from."""
    return str(vars_of(cls).get("__module__", "builtins"))


def qualname(cls: type) -> str:
    """Return a class's name, without the functions around it."""
    name: str = type.__dict__["__qualname__"].__get__(cls)
    return name.rpartition("<locals>.")[2]


def name_of(thing: object) -> str:
    """Return the qualified name of a function or class that is known by it."""
    if is_a(thing, type):
        return f"{module_of(thing)}.{qualname(thing)}"
    owner = bound_to(thing)
    module = getattr(thing, "__module__", None) or "builtins"
    if owner is not None:
        module = module_of(type(owner))
    return f"{module}.{getattr(thing, '__qualname__', '')}"


def bound_to(function: object) -> object:
    """Return the object whose method a function of C is, if it is one."""
    owner = getattr(function, "__self__", None) if is_a(function, NATIVE) else None
    return None if is_a(owner, ModuleType) else owner


def is_number(value: object) -> bool:
    """Return whether a value is what counters are."""
    return type(value) in (int, float)
