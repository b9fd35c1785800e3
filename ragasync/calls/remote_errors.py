"""
Errors on their way back from a worker process: each as itself where it survives, else a stand-in.

Pickling drops what an error was raised from. Unpickling calls its constructor, which may want more
than its message, as those of most clients do; may fail; and may give something else than before.
So every error is taken apart here and put together again on the worker first. Whatever does not
say the same after that stays behind, and what it said comes in its place.
"""

from __future__ import annotations

import asyncio
import copyreg
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from types import MemberDescriptorType, SimpleNamespace
from typing import Any, Final, NamedTuple, cast

from ragasync.calls.pickling import PLAIN, attempted, pack, unpack
from ragasync.calls.stand_ins import (
    MOST_PARTS,
    Likeness,
    built_in,
    dict_of,
    exact_text,
    likeness_of,
    names_of,
    plain_likeness,
)
from ragasync.error_text import describe, type_name
from ragasync.errors import CallAborted, RemoteError, SerializationError
from ragasync.foreign_errors import (
    LONGEST_MESSAGE,
    MOST_LINKS,
    attribute,
    group_members,
    is_a,
    notes_of,
    text_of,
)
from ragasync.redact import redact
from ragasync.retries.classify import congestion, default_retry, may_split, should_split
from ragasync.retries.http import headers_of, http_status, retry_after_of

DEEPEST: Final = 24
"""Links of a chain of causes, or levels of groups, that travel: pickling them is recursive."""

TIME_TO_PACK: Final = 5.0
"""Seconds for packing one error: reading its attributes runs code of others, which may hang."""

LONGEST_STACK: Final = 400
"""Lines of a worker's traceback that travel."""

_REPLY: Final = ("status_code", "status", "code", "headers", "reason")
"""Properties by which the reply of a service is known, whatever its class."""

_LOCKS: Final[dict[type, Callable[[], object]]] = {
    type(make()): make
    for make in (threading.Lock, threading.RLock, threading.Condition, threading.Event)
}
"""How to make a lock: it holds nothing, so that a new one serves as well on the other side."""


class NewLock(NamedTuple):
    """A lock that is made where the error arrives."""

    make: Callable[[], object]


class Recipe(NamedTuple):
    """
    How an error is made again, by the constructor of its built-in base instead of its own.

    Args:
        kind: its class.
        args: what its built-in base was made with.
        attributes: its `__dict__`.
        slots: what it keeps elsewhere: in slots, or as built-in exceptions do.
    """

    kind: type[BaseException]
    args: tuple[Any, ...]
    attributes: dict[str, Any]
    slots: dict[str, Any]

    def made(self, members: Sequence[BaseException]) -> BaseException:
        """Return the error; its parts that are errors too have travelled as such."""
        opened = partial(_opened, seen={})
        base = built_in(self.kind)
        args = tuple(map(opened, self.args))
        if issubclass(base, BaseExceptionGroup):
            args = args[0], members
        error = base.__new__(self.kind, *args)
        base.__init__(error, *args)
        dict_of(error).update({name: opened(value) for name, value in self.attributes.items()})
        for name, value in (self.attributes | self.slots).items():
            # A class of a cell has slots where it was made, and none where it was sent to.
            if name in self.slots or type(attribute(self.kind, name)) is MemberDescriptorType:
                _set(error, name, opened(value))
        return error


class PackedError(NamedTuple):
    """
    An error on its way back.

    Args:
        form: the pickled error, or its pickled Recipe; empty where neither survives.
        likeness: what is known of it without its class.
        notes: its notes, and the traceback of the worker.
        members: the errors of a group.
        cause: what it was raised from.
        context: what was being handled when it was raised.
        hides_context: whether it was raised `from` something, or from None.
    """

    form: bytes
    likeness: Likeness
    notes: tuple[str, ...] = ()
    members: tuple[PackedError, ...] = ()
    cause: PackedError | None = None
    context: PackedError | None = None
    hides_context: bool = False

    def unpacked(self) -> BaseException:
        """Return the error, or what stands for it; never raises."""
        error = self.itself()
        if error is None:  # not asked for its truth, which some errors deny
            error = self._completed(self.likeness.stand_in(self._members()))
        return error

    def itself(self) -> BaseException | None:
        """Return the error where it can be loaded here, as what it was; else None."""
        if not self.form:
            return None
        found, _ = attempted(unpack, self.form)
        if type(found) is Recipe:
            found, _ = attempted(found.made, self._members())
        return self._completed(found) if issubclass(type(found), self.likeness.base) else None

    def _members(self) -> list[BaseException]:
        """Return the errors of a group."""
        return [member.unpacked() for member in self.members]

    def _completed(self, error: BaseException) -> BaseException:
        """Return an error with what no error takes with it when it is pickled."""
        dict_of(error)["__notes__"] = list(self.notes)
        cause = self.cause and self.cause.unpacked()
        context = self.context and self.context.unpacked()
        _set(error, "__cause__", cause)
        _set(error, "__context__", cause if context is None else context)
        _set(error, "__suppress_context__", self.hides_context)
        return error


def packed_error(error: Exception, *, with_stack: bool = True) -> PackedError:
    """
    Return an error as it travels; whatever it does when it is looked at, this returns.

    Args:
        error: what a call raised.
        with_stack: whether its traceback, which cannot travel, becomes a note.
    """
    stack = (_stack_of(error),) if with_stack and not is_a(error, SerializationError) else ()
    packed, problem = attempted(_packed, error)
    if problem is not None:
        packed = PackedError(b"", Likeness((), RuntimeError, text_of(error), {}))
    return cast("PackedError", packed)._replace(notes=packed.notes + stack)


def unpacked_error(packed: PackedError) -> Exception:
    """Return a worker's error, or what stands for it."""
    error, problem = attempted(packed.unpacked)
    if problem is not None:
        error = RemoteError(packed.likeness.message)
    return error if is_a(error, Exception) else aborted(error)


def aborted(raised: BaseException) -> Exception:
    """
    Return the failure of an item whose call raised what is no Exception.

    A worker's own tasks are cancelled when its connections or loops go down, so that a
    cancellation which nobody here asked for is a lost connection. Anything else is final.
    """
    kind = ConnectionError if is_a(raised, asyncio.CancelledError) else CallAborted
    failure = kind(f"the call raised {describe(raised)}")
    failure.__cause__ = raised
    return failure


def _packed(error: BaseException) -> PackedError:
    """Return an error as it travels; a class may still be too strange for that."""
    if _is_plain(error):
        return PackedError(pickle.dumps(error, 5), plain_likeness(error), _notes_of(error))
    return _in_time(lambda: _Packing().packed(error)) or _unreadable(error)


def _is_plain(error: BaseException) -> bool:
    """Return whether an error is a built-in one with plain arguments, and nothing else."""
    return (
        built_in(type(error)) is type(error)
        and type(error).__module__ == "builtins"
        and type(error) not in copyreg.dispatch_table  # a package may have changed its pickling
        and not is_a(error, BaseExceptionGroup)
        and error.__cause__ is None
        and (error.__context__ is None or error.__suppress_context__)
        and PLAIN.issuperset(map(type, error.args))
        and error.__dict__.keys() <= {"__notes__"}
        and type(notes := error.__dict__.get("__notes__", [])) is list
        and PLAIN.issuperset(map(type, notes))
    )


class _Packing:
    """Packs one error with all that belongs to it; each error once, and no circle twice."""

    def __init__(self) -> None:
        self._left, self._parts_left = MOST_LINKS, MOST_PARTS * 8
        self._path: list[int] = []
        self._packed: dict[int, tuple[BaseException, PackedError]] = {}

    def packed(self, error: BaseException) -> PackedError:
        """Return an error with its members, its cause and its context, as they travel."""
        if known := self._packed.get(id(error)):
            return known[1]
        if self._left <= 0 or len(self._path) >= DEEPEST:
            return _unreadable(error)
        self._left -= 1
        self._path.append(id(error))
        try:
            packed = self._with_form(error, self._without_form(error))
        finally:
            self._path.pop()
        self._packed[id(error)] = error, packed  # the error too: its id must stay its own
        return packed

    def _without_form(self, error: BaseException) -> PackedError:
        """Return what stands for an error, with everything that belongs to it."""
        cause = self._link(attribute(error, "__cause__"))
        context = None if cause else self._link(attribute(error, "__context__"))
        members = tuple(map(self.packed, group_members(error)))
        hides = bool(attribute(error, "__suppress_context__"))
        likeness = likeness_of(error)
        packed = PackedError(b"", likeness, _notes_of(error), members, cause, context, hides)
        # What an SDK says by a method, or in its words, is said by a header.
        seconds = _wait_asked_by(error)
        if seconds is not None and _wait_asked_by(packed.unpacked()) != seconds:
            headers = {**likeness.reply.get("headers", {}), "retry-after-ms": str(1000 * seconds)}
            reply = {**likeness.reply, "headers": headers}
            packed = packed._replace(likeness=likeness._replace(reply=reply))
        return packed

    def _link(self, other: object) -> PackedError | None:
        """Return an error that another was raised from, unless that closes a circle."""
        if not issubclass(type(other), BaseException) or id(other) in self._path:
            return None
        return self.packed(cast("BaseException", other))

    def _with_form(self, error: BaseException, packed: PackedError) -> PackedError:
        """Return the packed error with the first of its forms that says the same when loaded."""
        said = _said_by(error)
        for form in self._forms(error):
            candidate = packed._replace(form=form)
            found, _ = attempted(candidate.itself)
            if found is not None and _said_by(found) == said:
                return candidate
        return packed

    def _forms(self, error: BaseException) -> Iterator[bytes]:
        """Yield the ways in which an error may survive: its class's own, else ours."""
        kind = type(error)
        base = built_in(kind)
        own = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
        has_own = any(attribute(kind, name) is not attribute(base, name) for name in own)
        if (has_own or kind in copyreg.dispatch_table) and not group_members(error):
            form, _ = attempted(pack, error)
            if form:
                yield form
        for recipe in (self._whole_recipe, self._portable_recipe, self._recipe_of_message):
            form, _ = attempted(lambda recipe=recipe: pack(recipe(error)))
            if form:
                yield form

    def _whole_recipe(self, error: BaseException) -> Recipe:
        """Return how to make an error again from all of its parts."""
        return _recipe_of(error, self._error_apart)

    def _portable_recipe(self, error: BaseException) -> Recipe:
        """Return the same with what can be pickled of each part."""
        return _recipe_of(error, self._portable)

    def _recipe_of_message(self, error: BaseException) -> Recipe:
        """Return the same with the message in place of the arguments that it was made of."""
        return self._portable_recipe(error)._replace(args=(str(error),))

    def _error_apart(self, value: object) -> object:
        """Return a part of an error as it is; another error in it travels by itself."""
        if issubclass(type(value), BaseException):  # its `__class__` may say something else
            return self._link(value)
        return value

    def _portable(self, value: object, depth: int = 0) -> object:
        """Return a part of an error, or what can be pickled of it."""
        value = self._error_apart(value)
        if type(value) in PLAIN or isinstance(value, PackedError) or _survives(value):
            return value
        if type(value) in _LOCKS:
            return NewLock(_LOCKS[type(value)])
        self._parts_left -= 1
        if depth >= 4 or self._parts_left < 0:
            return None
        inner = partial(self._portable, depth=depth + 1)
        if isinstance(value, list | tuple | set | frozenset) and not _fields_of(value):
            return [inner(each) for each in islice(value, MOST_PARTS)]
        if (entries := _entries_of(value)) is not None:
            return {name: inner(each) for name, each in entries.items()}
        # A reply with an open socket, say: what it says, without what it does.
        said = {name: inner(each) for name, each in _parts_of(value).items()}
        return SimpleNamespace(**{name: each for name, each in said.items() if each is not None})


def _recipe_of(error: BaseException, part: Callable[[object], object]) -> Recipe:
    """Return how to make an error again, each of its parts as `part` gives it."""
    base = built_in(type(error))
    args = base.__reduce__(error)[1]  # not error.args: those of an OSError lack the file
    assert isinstance(args, tuple)
    if is_a(error, BaseExceptionGroup):
        args = (error.message,)
    kind: Any = type(error)
    if (kind.__init__, kind.__new__) != (base.__init__, base.__new__):
        # Nobody but us makes it without its constructor: what we make quotes no secret.
        args = tuple(redact(each) if type(each) is str else each for each in args)
    attributes = {name: value for name, value in dict_of(error).items() if name != "__notes__"}
    return Recipe(
        kind,
        tuple(map(part, args)),
        {name: part(value) for name, value in attributes.items()},
        {name: part(value) for name, value in _slots_of(error) if value is not None},
    )


def _said_by(error: BaseException) -> tuple[object, ...]:
    """Return everything by which an error is judged, told apart or shown."""
    plain = {
        name: value
        for name, value in dict_of(error).items()
        if type(value) in PLAIN and value is not None and name != "__notes__"
    }
    asked: tuple[Callable[[Any], object], ...] = (
        *(_message_of, http_status, headers_of, _wait_asked_by),
        *(default_retry, may_split, should_split, congestion),
    )
    answers = (attempted(ask, error)[0] for ask in asked)
    return names_of(type(error))[:1], plain, *answers


def _message_of(error: BaseException) -> str:
    """Return the message of an error by which it is compared."""
    return redact(str(error)[:LONGEST_MESSAGE])


def _wait_asked_by(error: BaseException) -> float | None:
    """Return the seconds that a service asks to wait; a date counts from 1970, to be compared."""
    seconds: float | None
    seconds, _ = attempted(partial(retry_after_of, now=0.0), error)
    return seconds


def _unreadable(error: BaseException) -> PackedError:
    """Return what is said of an error that could not be packed in time, or is too deep down."""
    return PackedError(b"", plain_likeness(error), _notes_of(error))


def _notes_of(error: BaseException) -> tuple[str, ...]:
    """Return the notes of an error as mere texts."""
    return tuple(map(exact_text, notes_of(error)))


def _slots_of(owner: object) -> Iterator[tuple[str, object]]:
    """Yield what an object keeps outside of its `__dict__`: slots, and a built-in error's own."""
    for kind in type(owner).__mro__:
        if kind in (BaseException, BaseExceptionGroup, AttributeError):
            continue  # a group's members travel apart, and `obj` may be as big as the data
        for name, member in vars(kind).items():
            if isinstance(member, MemberDescriptorType) and not name.startswith("__"):
                with suppress(AttributeError):  # nothing is in it
                    yield name, member.__get__(owner)


def _entries_of(value: object) -> dict[str, object] | None:
    """Return a mapping's entries by their names, or None where it is no mapping."""
    items = attribute(value, "items")
    if isinstance(value, type) or not callable(items) or not callable(attribute(value, "keys")):
        return None
    entries, _ = attempted(lambda: dict(islice(items(), MOST_PARTS)))
    return None if entries is None else {text_of(name): each for name, each in entries.items()}


def _parts_of(value: object) -> dict[str, object]:
    """Return the public attributes of any object, and what makes it the reply of a service."""
    kept = attribute(value, "__dict__")
    parts: dict[str, object] = dict(kept) if isinstance(kept, dict) else {}
    parts |= dict(attempted(lambda: list(_slots_of(value)))[0] or ())
    parts |= {name: attribute(value, name) for name in (*_fields_of(value), *_REPLY)}
    shown = [name for name in parts if isinstance(name, str) and not name.startswith("_")]
    return {name: parts[name] for name in shown[:MOST_PARTS] if not callable(parts[name])}


def _fields_of(value: object) -> tuple[str, ...]:
    """Return the names of a named tuple's entries."""
    fields = attribute(type(value), "_fields")
    return fields if isinstance(value, tuple) and isinstance(fields, tuple) else ()


def _survives(value: object) -> bool:
    """Return whether a value can be pickled and loaded again."""
    form, _ = attempted(pack, value)
    return form is not None and attempted(unpack, form)[1] is None


def _opened(value: object, seen: dict[int, BaseException]) -> object:
    """Return a part of an error; one that is an error itself comes to life, the same each time."""
    if isinstance(value, PackedError):
        if id(value) not in seen:
            seen[id(value)] = value.unpacked()
        return seen[id(value)]
    if isinstance(value, NewLock):
        return value.make()
    if type(value) is list:
        return [_opened(each, seen) for each in value]
    if type(value) is dict:
        return {name: _opened(each, seen) for name, each in value.items()}
    if type(value) is SimpleNamespace:
        return SimpleNamespace(**{name: _opened(each, seen) for name, each in vars(value).items()})
    return value


def _set(error: BaseException, name: str, value: object) -> None:
    """Set an attribute of an error, also of one that is frozen."""
    with suppress(AttributeError, TypeError):  # of a built-in error some are read-only
        object.__setattr__(error, name, value)


def _in_time(work: Callable[[], PackedError]) -> PackedError | None:
    """Return what some work gives, or None where it raises, or is not done in time."""
    done: list[PackedError | None] = []
    thread = threading.Thread(target=lambda: done.append(attempted(work)[0]), daemon=True)
    thread.start()
    thread.join(TIME_TO_PACK)
    return done[0] if done else None


def _stack_of(error: BaseException) -> str:
    """Return the traceback of an error as a note, without secrets and not endless."""
    text, _ = attempted(lambda: "".join(traceback.format_exception(error)))
    lines = (text or f"{type_name(error)} cannot be shown\n").splitlines()
    if len(lines) > LONGEST_STACK:
        half = LONGEST_STACK // 2
        lines = [*lines[:half], "...", *lines[-half:]]
    shown = "\n".join(
        # A secret that is cut in two would not be known for one: so the last word goes too.
        line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE].rpartition(" ")[0] + " ..."
        for line in lines
    )
    return f"On the worker:\n{redact(shown)}\n"
