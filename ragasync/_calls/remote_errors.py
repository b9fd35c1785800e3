"""
Errors on their way back from a worker process: each as itself if possible, else a placeholder.

Pickle drops an error's cause. Unpickling calls its constructor, which may need more arguments than
the message (as in most clients), may fail, and may build a different error. So the
worker saves an error as its parts, and rebuilds a copy to see whether that works. If the copy
differs in anything by which errors are classified or shown, a placeholder is sent instead.
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

from ragasync._calls.pickling import (
    MAX_PARTS,
    PLAIN,
    ErrorDescription,
    builtin_base,
    class_names_of,
    describe_error,
    describe_plainly,
    dict_of,
    dumps,
    loads,
    plain_str,
    try_call,
)
from ragasync._retries.classify import congestion, default_retry, may_split, should_split
from ragasync._retries.http import headers_of, http_status
from ragasync._retries.retry_after import retry_after_of
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

MAX_DEPTH: Final = 24
"""Links of a chain of causes, or levels of groups, that are pickled: pickling is recursive."""

PICKLE_TIMEOUT: Final = 5.0
"""Seconds for pickling one error: reading its attributes runs foreign code, which may hang."""

MAX_STACK_LINES: Final = 400
"""Lines of a worker's traceback that are kept."""

_REPLY_ATTRIBUTES: Final = ("status_code", "status", "code", "headers", "reason")
"""Attributes that make an object the reply of a service, whatever its class."""

_LOCKS: Final[dict[type, Callable[[], object]]] = {
    type(make()): make
    for make in (threading.Lock, threading.RLock, threading.Condition, threading.Event)
}
"""Factories of locks: a lock holds no data, so a new one serves as well on the other side."""


class NewLock(NamedTuple):
    """A lock that is created where the error is loaded."""

    make: Callable[[], object]


class Recipe(NamedTuple):
    """
    The parts from which an error is rebuilt, without calling its own constructor.

    Args:
        args: the arguments of its built-in base's constructor.
        attributes: its `__dict__`.
        slots: its state outside of `__dict__`: in slots, or as built-in exceptions have it.
    """

    kind: type[BaseException]
    args: tuple[Any, ...]
    attributes: dict[str, Any]
    slots: dict[str, Any]

    def build(self, members: Sequence[BaseException]) -> BaseException:
        """Build the error; parts of it that are errors too were pickled as such."""
        revive = partial(_revive, seen={})
        base = builtin_base(self.kind)
        args = tuple(map(revive, self.args))
        if issubclass(base, BaseExceptionGroup):
            args = args[0], members
        error = base.__new__(self.kind, *args)
        base.__init__(error, *args)
        dict_of(error).update({name: revive(value) for name, value in self.attributes.items()})
        for name, value in (self.attributes | self.slots).items():
            # A class of a cell has slots where it was defined, and none where it was unpickled.
            if name in self.slots or type(attribute(self.kind, name)) is MemberDescriptorType:
                _set(error, name, revive(value))
        return error


class PickledError(NamedTuple):
    """
    A pickled error.

    Args:
        form: the pickled error or its pickled Recipe; empty if neither can be pickled.
        description: the parts of it that do not need its class.
        notes: its notes, and the traceback of the worker.
        hides_context: whether it was raised `from` something, or from None.
    """

    form: bytes
    description: ErrorDescription
    notes: tuple[str, ...] = ()
    members: tuple[PickledError, ...] = ()
    cause: PickledError | None = None
    context: PickledError | None = None
    hides_context: bool = False

    def load(self) -> BaseException:
        """Load the error, or make its placeholder; never raises."""
        error = self.load_itself()
        if error is None:  # not `or`: some errors are false, or raise in __bool__
            error = self._with_context(self.description.placeholder(self._members()))
        return error

    def load_itself(self) -> BaseException | None:
        """Load the error as it was; None if that is not possible here."""
        if not self.form:
            return None
        found, _ = try_call(loads, self.form)
        if type(found) is Recipe:
            found, _ = try_call(found.build, self._members())
        return self._with_context(found) if issubclass(type(found), self.description.base) else None

    def _members(self) -> list[BaseException]:
        """Load the errors of a group."""
        return [member.load() for member in self.members]

    def _with_context(self, error: BaseException) -> BaseException:
        """Add notes, cause and context to an error, which pickle drops."""
        dict_of(error)["__notes__"] = list(self.notes)
        cause = self.cause and self.cause.load()
        context = self.context and self.context.load()
        _set(error, "__cause__", cause)
        _set(error, "__context__", cause if context is None else context)
        _set(error, "__suppress_context__", self.hides_context)
        return error


def pickle_error(error: Exception, *, with_stack: bool = True) -> PickledError:
    """
    Pickle an error; never raises, whatever foreign code in the error does.

    Args:
        error: the error of a call.
        with_stack: whether its traceback, which cannot be pickled, becomes a note.
    """
    stack = (_stack_note(error),) if with_stack and not is_a(error, SerializationError) else ()
    pickled, problem = try_call(_pickle, error)
    if problem is not None:
        pickled = PickledError(b"", ErrorDescription((), RuntimeError, text_of(error), {}))
    return cast("PickledError", pickled)._replace(notes=pickled.notes + stack)


def unpickle_error(pickled: PickledError) -> Exception:
    """Load a worker's error, or make its placeholder."""
    error, problem = try_call(pickled.load)
    if problem is not None:
        error = RemoteError(pickled.description.message)
    return error if is_a(error, Exception) else aborted_call(error)


def aborted_call(raised: BaseException) -> Exception:
    """
    Make the error of an item whose call raised a BaseException such as SystemExit.

    A worker cancels its own tasks when its connections or loops go down, so a cancellation that
    nobody here asked for is a lost connection. Anything else is final.
    """
    kind = ConnectionError if is_a(raised, asyncio.CancelledError) else CallAborted
    failure = kind(f"the call raised {describe(raised)}")
    failure.__cause__ = raised
    return failure


def _pickle(error: BaseException) -> PickledError:
    """Pickle an error; the class of some errors may make that fail."""
    if _is_plain(error):
        return PickledError(pickle.dumps(error, 5), describe_plainly(error), _notes_of(error))
    return _within_timeout(lambda: _ErrorPickler().pickle(error)) or _description_only(error)


def _is_plain(error: BaseException) -> bool:
    """Whether an error is a built-in one with plain arguments, and nothing else."""
    return (
        builtin_base(type(error)) is type(error)
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


class _ErrorPickler:
    """Pickles one error with its group, cause and context; each error once, also in a cycle."""

    def __init__(self) -> None:
        self._links_left, self._parts_left = MOST_LINKS, MAX_PARTS * 8
        self._path: list[int] = []
        self._done: dict[int, tuple[BaseException, PickledError]] = {}

    def pickle(self, error: BaseException) -> PickledError:
        """Pickle an error with its members, cause and context."""
        if known := self._done.get(id(error)):
            return known[1]
        if self._links_left <= 0 or len(self._path) >= MAX_DEPTH:
            return _description_only(error)
        self._links_left -= 1
        self._path.append(id(error))
        try:
            pickled = self._with_form(error, self._describe(error))
        finally:
            self._path.pop()
        self._done[id(error)] = error, pickled  # the error too, so that its id is not reused
        return pickled

    def _describe(self, error: BaseException) -> PickledError:
        """Describe an error, with its notes, members, cause and context."""
        cause = self._link(attribute(error, "__cause__"))
        context = None if cause else self._link(attribute(error, "__context__"))
        members = tuple(map(self.pickle, group_members(error)))
        hides = bool(attribute(error, "__suppress_context__"))
        description = describe_error(error)
        pickled = PickledError(b"", description, _notes_of(error), members, cause, context, hides)
        # A wait that an SDK states by a method, or in the message, becomes a header.
        seconds = _retry_after(error)
        if seconds is not None and _retry_after(pickled.load()) != seconds:
            headers = {
                **description.reply.get("headers", {}),
                "retry-after-ms": str(1000 * seconds),
            }
            reply = {**description.reply, "headers": headers}
            pickled = pickled._replace(description=description._replace(reply=reply))
        return pickled

    def _link(self, other: object) -> PickledError | None:
        """Pickle the cause or context of an error, unless that closes a cycle."""
        if not issubclass(type(other), BaseException) or id(other) in self._path:
            return None
        return self.pickle(cast("BaseException", other))

    def _with_form(self, error: BaseException, pickled: PickledError) -> PickledError:
        """Add the first pickled form that has the same traits when it is loaded."""
        traits = _traits_of(error)
        for form in self._forms(error):
            candidate = pickled._replace(form=form)
            found, _ = try_call(candidate.load_itself)
            if found is not None and _traits_of(found) == traits:
                return candidate
        return pickled

    def _forms(self, error: BaseException) -> Iterator[bytes]:
        """Yield the pickled forms of an error: by its class's own method, then by our recipes."""
        kind = type(error)
        base = builtin_base(kind)
        own = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
        has_own = any(attribute(kind, name) is not attribute(base, name) for name in own)
        if (has_own or kind in copyreg.dispatch_table) and not group_members(error):
            form, _ = try_call(dumps, error)
            if form:
                yield form
        recipes: tuple[Callable[[], Recipe], ...] = (
            lambda: _recipe_of(error, self._link_error),  # all parts as they are
            lambda: _recipe_of(error, self._portable),  # the picklable data of each part
            lambda: _recipe_of(error, self._portable)._replace(args=(str(error),)),
        )
        for recipe in recipes:
            form, _ = try_call(lambda recipe=recipe: dumps(recipe()))
            if form:
                yield form

    def _link_error(self, value: object) -> object:
        """Keep a part of an error as it is; a part that is an error is pickled as one."""
        if issubclass(type(value), BaseException):  # its `__class__` may say something else
            return self._link(value)
        return value

    def _portable(self, value: object, depth: int = 0) -> object:
        """Reduce a part of an error to its picklable data."""
        value = self._link_error(value)
        if type(value) in PLAIN or isinstance(value, PickledError) or _can_be_pickled(value):
            return value
        if type(value) in _LOCKS:
            return NewLock(_LOCKS[type(value)])
        self._parts_left -= 1
        if depth >= 4 or self._parts_left < 0:
            return None
        inner = partial(self._portable, depth=depth + 1)
        if isinstance(value, list | tuple | set | frozenset) and not _fields_of(value):
            return [inner(each) for each in islice(value, MAX_PARTS)]
        if (entries := _entries_of(value)) is not None:
            return {name: inner(each) for name, each in entries.items()}
        # For example a reply with an open socket: its data, without its methods.
        data = {name: inner(each) for name, each in _parts_of(value).items()}
        return SimpleNamespace(**{name: each for name, each in data.items() if each is not None})


def _recipe_of(error: BaseException, part: Callable[[object], object]) -> Recipe:
    """Make the recipe of an error, with each of its parts converted by `part`."""
    base = builtin_base(type(error))
    args = base.__reduce__(error)[1]  # not error.args: those of an OSError lack the file
    assert isinstance(args, tuple)
    if is_a(error, BaseExceptionGroup):
        args = (error.message,)
    kind: Any = type(error)
    if (kind.__init__, kind.__new__) != (base.__init__, base.__new__):
        # Only this code builds the error without its constructor: no secret may be in it.
        args = tuple(redact(each) if type(each) is str else each for each in args)
    attributes = {name: value for name, value in dict_of(error).items() if name != "__notes__"}
    return Recipe(
        kind,
        tuple(map(part, args)),
        {name: part(value) for name, value in attributes.items()},
        {name: part(value) for name, value in _slots_of(error) if value is not None},
    )


def _traits_of(error: BaseException) -> tuple[object, ...]:
    """The traits by which an error is classified, grouped and shown."""
    plain = {
        name: value
        for name, value in dict_of(error).items()
        if type(value) in PLAIN and value is not None and name != "__notes__"
    }
    questions: tuple[Callable[[Any], object], ...] = (
        *(_redacted_message, http_status, headers_of, _retry_after),
        *(default_retry, may_split, should_split, congestion),
    )
    answers = (try_call(ask, error)[0] for ask in questions)
    return class_names_of(type(error))[:1], plain, *answers


def _redacted_message(error: BaseException) -> str:
    """The message of an error, for comparison."""
    return redact(str(error)[:LONGEST_MESSAGE])


def _retry_after(error: BaseException) -> float | None:
    """The Retry-After of an error in seconds; a date counts from 1970, for comparison."""
    seconds: float | None
    seconds, _ = try_call(partial(retry_after_of, now=0.0), error)
    return seconds


def _description_only(error: BaseException) -> PickledError:
    """Pickle only the description of an error that takes too long or lies too deep."""
    return PickledError(b"", describe_plainly(error), _notes_of(error))


def _notes_of(error: BaseException) -> tuple[str, ...]:
    """The notes of an error as plain texts."""
    return tuple(map(plain_str, notes_of(error)))


def _slots_of(owner: object) -> Iterator[tuple[str, object]]:
    """Yield the state of an object outside of its `__dict__`: slots and built-in attributes."""
    for kind in type(owner).__mro__:
        if kind in (BaseException, BaseExceptionGroup, AttributeError):
            continue  # a group's members are pickled separately, and `obj` may be big
        for name, member in vars(kind).items():
            if isinstance(member, MemberDescriptorType) and not name.startswith("__"):
                with suppress(AttributeError):  # the slot is empty
                    yield name, member.__get__(owner)


def _entries_of(value: object) -> dict[str, object] | None:
    """The entries of a mapping by name; None for other objects."""
    items = attribute(value, "items")
    if isinstance(value, type) or not callable(items) or not callable(attribute(value, "keys")):
        return None
    entries, _ = try_call(lambda: dict(islice(items(), MAX_PARTS)))
    return None if entries is None else {text_of(name): each for name, each in entries.items()}


def _parts_of(value: object) -> dict[str, object]:
    """The public attributes of an object, including those of a service's reply."""
    kept = attribute(value, "__dict__")
    parts: dict[str, object] = dict(kept) if isinstance(kept, dict) else {}
    parts |= dict(try_call(lambda: list(_slots_of(value)))[0] or ())
    parts |= {name: attribute(value, name) for name in (*_fields_of(value), *_REPLY_ATTRIBUTES)}
    shown = [name for name in parts if isinstance(name, str) and not name.startswith("_")]
    return {name: parts[name] for name in shown[:MAX_PARTS] if not callable(parts[name])}


def _fields_of(value: object) -> tuple[str, ...]:
    """The field names of a named tuple."""
    fields = attribute(type(value), "_fields")
    return fields if isinstance(value, tuple) and isinstance(fields, tuple) else ()


def _can_be_pickled(value: object) -> bool:
    """Whether a value can be pickled and loaded again."""
    form, _ = try_call(dumps, value)
    return form is not None and try_call(loads, form)[1] is None


def _revive(value: object, seen: dict[int, BaseException]) -> object:
    """Load a part of an error; the same pickled error becomes the same object each time."""
    if isinstance(value, PickledError):
        if id(value) not in seen:
            seen[id(value)] = value.load()
        return seen[id(value)]
    if isinstance(value, NewLock):
        return value.make()
    if type(value) is list:
        return [_revive(each, seen) for each in value]
    if type(value) is dict:
        return {name: _revive(each, seen) for name, each in value.items()}
    if type(value) is SimpleNamespace:
        return SimpleNamespace(**{name: _revive(each, seen) for name, each in vars(value).items()})
    return value


def _set(error: BaseException, name: str, value: object) -> None:
    """Set an attribute of an error, even if its class is frozen."""
    with suppress(AttributeError, TypeError):  # some attributes of built-in errors are read-only
        object.__setattr__(error, name, value)


def _within_timeout(work: Callable[[], PickledError]) -> PickledError | None:
    """Run some work on a thread; None if it raises or exceeds the timeout."""
    done: list[PickledError | None] = []
    thread = threading.Thread(target=lambda: done.append(try_call(work)[0]), daemon=True)
    thread.start()
    thread.join(PICKLE_TIMEOUT)
    return done[0] if done else None


def _stack_note(error: BaseException) -> str:
    """The traceback of an error as a note, bounded and without secrets."""
    text, _ = try_call(lambda: "".join(traceback.format_exception(error)))
    lines = (text or f"{type_name(error)} cannot be shown\n").splitlines()
    if len(lines) > MAX_STACK_LINES:
        half = MAX_STACK_LINES // 2
        lines = [*lines[:half], "...", *lines[-half:]]
    shown = "\n".join(
        # Half a secret would not be recognized, so the word at the cut goes too.
        line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE].rpartition(" ")[0] + " ..."
        for line in lines
    )
    return f"On the worker:\n{redact(shown)}\n"
