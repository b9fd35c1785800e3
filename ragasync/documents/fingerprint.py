"""What tells one stage's function from another: its name, and what it was made with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import TypeAlias

StageFunction: TypeAlias = Callable[..., object]
"""A stage's function: what it takes and gives depends on the stage."""


def name_of(function: StageFunction, *, attributes: bool = False) -> str:
    """
    Return a name for a function that is the same in every process.

    It is the `fingerprint` or `name` that the function, or a method's object, says of itself;
    else its qualified name, with the `model` or `model_name` of its object: packages have one
    class for many models, whose vectors do not mix. The plain arguments of a partial count too,
    as a digest, because one of them may be a key.

    Args:
        function: a function, method, partial or callable object.
        attributes: whether the plain attributes of an object count too. A splitter of another
            size is another splitter; but an embedder may count its calls.
    """
    if isinstance(function, partial):
        bound = [*enumerate(function.args), *sorted(function.keywords.items())]
        return f"{name_of(function.func, attributes=attributes)}{_digest(bound)}"
    owner = getattr(function, "__self__", function)
    if (own := _said_by(owner, "fingerprint", "name")) is not None:
        return own
    name = _qualified(function)
    if (model := _said_by(owner, "model", "model_name")) is not None:
        name = f"{name}({model})"
    if not attributes or inspect.isroutine(owner) or inspect.isclass(owner):
        return name
    return f"{name}{_digest(sorted(getattr(owner, '__dict__', {}).items()))}"


def _said_by(owner: object, *attributes: str) -> str | None:
    """Return the first of these attributes that is a text, or None."""
    values = (getattr(owner, attribute, None) for attribute in attributes)
    return next((value for value in values if isinstance(value, str)), None)


def _qualified(function: StageFunction) -> str:
    """Return the qualified name of a function or class; that of a method is its own object's."""
    if inspect.ismethod(function):
        owner = function.__self__
        kind = owner if inspect.isclass(owner) else type(owner)
        return f"{kind.__module__}.{kind.__qualname__}.{function.__name__}"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


def _digest(parameters: Iterable[tuple[object, object]]) -> str:
    """Return the plain ones of some parameters as a few digits."""
    plain = [(key, value) for key, value in parameters if _is_plain(value)]
    return f"#{blake2b(repr(plain).encode(), digest_size=8).hexdigest()}" if plain else ""


def _is_plain(value: object) -> bool:
    """Return whether a value is written the same in every process."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)
