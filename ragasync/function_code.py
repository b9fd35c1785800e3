"""The code of a function as a digest: of its source without its looks, else of its bytecode."""

from __future__ import annotations
import __future__

import ast
import dis
import linecache
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import Final, TypeAlias

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
"""The source of a function, as a tree."""

ANY: Final = ""
"""Stands among names that are changed for all that there are."""

BYTECODE: Final = f"bytecode-{sys.version_info.major}.{sys.version_info.minor}"
"""The scheme of a digest that only the same Python can compare."""

_LARGEST_FILE: Final = 1 << 19
"""Characters of a file that is parsed; a larger one is not written by hand."""

_CHANGING: Final = frozenset(
    """add append appendleft clear discard extend extendleft insert pop popitem popleft remove
    reverse setdefault sort subtract update""".split()  # noqa: SIM905  # as text it can be read
)
"""The methods by which a list, dict, set, deque or Counter changes."""

_CONTAINERS: Final = frozenset({"dict", "list", "set", "Counter", "OrderedDict", "bytearray"})

_UNSEEN: Final = frozenset({"ctx", "kind", "type_comment", "type_ignores", "annotation", "returns"})
"""Fields of a tree that change nothing about what a call does."""

_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUTURE: Final = __future__.annotations.compiler_flag
_FLAGS: Final = 0x2AC  # *args, **kwargs, generator, coroutine, async generator
_IDLE: Final = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "RESUME"})
_ABOUT_A_CLASS: Final = frozenset({"__doc__", "__firstlineno__", "__static_attributes__"})
_READS_GLOBAL: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_READS_ATTRIBUTE: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"})


def digest(text: str) -> str:
    """Return a text as 20 digits that are the same in every process."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=10).hexdigest()


@dataclass(slots=True)
class Names:
    """
    What the code of a function does to names, that of the functions within it included.

    Args:
        globals: the global names that it reads.
        attributes: the attributes that it reads, of whatever.
        rebound: the names of an outer scope that it binds anew.
        stored: the attributes that it sets, of whatever.
    """

    globals: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    rebound: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)


def names_in(code: CodeType) -> Names:
    """Return what code does to names."""
    names = Names()
    for part in _nested(code):
        for step in dis.get_instructions(part):
            if step.opname in _READS_GLOBAL:
                names.globals.add(str(step.argval))
            elif step.opname in _READS_ATTRIBUTE:
                names.attributes.add(str(step.argval))
            elif step.opname == "STORE_ATTR":
                names.stored.add(str(step.argval))
            elif step.opname == "STORE_GLOBAL" or (
                step.opname == "STORE_DEREF" and step.argval in part.co_freevars
            ):
                names.rebound.add(str(step.argval))
    return names


def digest_of_source(node: FunctionNode) -> str:
    """
    Return a digest of a function's source that its looks do not change.

    Positions, comments, docstrings and annotations do not count, nor do the name, decorators and
    defaults of the function itself: what these came to is known by value. The digest is the same
    for every Python that parses the source to the same tree.
    """
    body = node.body if isinstance(node, ast.Lambda) else _without_docstring(node.body)
    kinds = node.args.posonlyargs, node.args.args, node.args.kwonlyargs
    parts = [type(node).__name__, repr([[one.arg for one in kind] for kind in kinds])]
    parts += [repr(more and more.arg) for more in (node.args.vararg, node.args.kwarg)]
    parts += _written(body)
    return f"source:{digest(' '.join(parts))}"


def digest_of_bytecode(code: CodeType) -> str:
    """Return a digest of bytecode, without file, lines and docstrings; of this Python alone."""
    return f"{BYTECODE}:{digest(_steps(code))}"


@dataclass(slots=True)
class Changes:
    """
    What a function changes of what is outside of it.

    Args:
        names: the names of variables whose lists, dicts or sets it changes in place; ANY: nobody
            knows which.
        attributes: likewise, the names of attributes.
        rebound: the names of an outer scope that it binds anew.
    """

    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    rebound: set[str] = field(default_factory=set)

    def add(self, other: Changes) -> None:
        """Add what another function changes."""
        self.names |= other.names
        self.attributes |= other.attributes
        self.rebound |= other.rebound


def changed_in_place(node: FunctionNode | None) -> Changes:
    """Return what a function changes in place, by its source; without it, nobody knows."""
    if node is None:
        return Changes({ANY}, {ANY})
    changes, aliases = Changes(), []
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            owner = part.func.value if part.func.attr in _CHANGING else None
        elif isinstance(part, ast.Subscript) and not isinstance(part.ctx, ast.Load):
            owner = part.value
        elif isinstance(part, ast.AugAssign):
            owner = part.target
        elif isinstance(part, ast.Assign) and isinstance(part.value, ast.Attribute | ast.Name):
            aliases.append(part)
            continue
        else:
            continue
        _note_chain(owner, changes)
    for alias in aliases:
        names = {target.id for target in alias.targets if isinstance(target, ast.Name)}
        if names & changes.names:
            _note_chain(alias.value, changes)
    return changes


def _note_chain(owner: ast.expr | None, changes: Changes) -> None:
    """Note a variable that is changed, or the attributes on the way to what is."""
    while isinstance(owner, ast.Subscript | ast.Attribute):
        if isinstance(owner, ast.Attribute):
            changes.attributes.add(owner.attr)
        owner = owner.value
    if isinstance(owner, ast.Name):
        changes.names.add(owner.id)


def set_to_nothing(node: FunctionNode) -> set[str]:
    """Return the attributes that a constructor sets to an empty list, dict or the like."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            if _is_empty(part.value):
                names |= {target.attr for target in targets if isinstance(target, ast.Attribute)}
    return names


def _is_empty(value: ast.expr) -> bool:
    """Return whether an expression makes an empty container, such as `[]` or `dict()`."""
    match value:
        case ast.List(elts=[]) | ast.Dict(keys=[]):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments):
            is_bare = not arguments and not value.keywords
            return name == "defaultdict" or (is_bare and name in _CONTAINERS)
    return False


_Place: TypeAlias = tuple[str, int]
"""The name of a function, and the line that it begins on."""


@dataclass(frozen=True, slots=True)
class _File:
    """The functions of a file, as trees and as code, by where they are."""

    nodes: dict[_Place, list[FunctionNode]]
    codes: dict[_Place, list[CodeType]]


class Sources:
    """The files that functions were written in, each read and parsed once."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int], _File | None] = {}

    def node_of(self, function: FunctionType) -> FunctionNode | None:
        """
        Return the source of a function, if it is what the function was made of.

        A file may have been edited since; so its source counts only where it gives this code.
        """
        code = function.__code__
        flags, place = code.co_flags & _FUTURE, (code.co_name, code.co_firstlineno)
        for is_fresh in (False, True):
            if is_fresh:
                linecache.checkcache(code.co_filename)
                self._files.pop((code.co_filename, flags), None)
            file = self._parsed(code.co_filename, flags, function.__globals__)
            if file is None:
                return None
            if code in file.codes.get(place, ()):
                return _node_of(file.nodes.get(place, []), code)
        return None

    def _parsed(self, filename: str, flags: int, module_globals: dict[str, object]) -> _File | None:
        """Return the functions of a file, or None where it cannot be had."""
        if (filename, flags) not in self._files:
            self._files[filename, flags] = None
            with suppress(Exception):  # of a loader of somebody's own, or no Python at all
                text = "".join(linecache.getlines(filename, module_globals))
                if 0 < len(text) <= _LARGEST_FILE:
                    self._files[filename, flags] = _parse(text, filename, flags)
        return self._files[filename, flags]


def _parse(text: str, filename: str, flags: int) -> _File:
    """
    Return the functions of a text.

    A notebook's cell may await outside of functions, and has the future of the cells before it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were given when it was first compiled
        tree = ast.parse(text, filename)
        flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        module = compile(tree, filename, "exec", flags, dont_inherit=True)
    file = _File({}, {})
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            file.nodes.setdefault((node.name, first), []).append(node)
        elif isinstance(node, ast.Lambda):
            file.nodes.setdefault(("<lambda>", node.lineno), []).append(node)
    for code in _nested(module):
        file.codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)
    return file


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _node_of(nodes: list[FunctionNode], code: CodeType) -> FunctionNode | None:
    """Return the one of these functions that code was compiled from."""
    if len(nodes) > 1:  # lambdas of one line, which their columns tell apart
        places = [
            place
            for line, end_line, column, end_column in code.co_positions()
            if line and end_line and column is not None and end_column
            for place in ((line, column), (end_line, end_column))
        ]
        if not places:
            return None
        first, last = min(places), max(places)
        nodes = [node for node in nodes if _span(node)[0] <= first and last <= _span(node)[1]]
        nodes.sort(key=lambda node: _span(node)[0], reverse=True)  # the innermost
    return nodes[0] if nodes else None


def _span(node: FunctionNode) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where the body of a function begins and ends."""
    first, last = (node.body, node.body) if isinstance(node, ast.Lambda) else (node, node)
    return (first.lineno, first.col_offset), (last.end_lineno or 0, last.end_col_offset or 0)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of a body that do something; with none left, `pass`."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest or [ast.Pass()]
    return body


def _written(node: object) -> Iterator[str]:
    """Yield the words of a tree, without what differs between Pythons and with looks."""
    if isinstance(node, ast.JoinedStr):
        yield "f("
        yield from _written(_merged(node.values))
        yield ")"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(node, _DOCUMENTED):
                value = _without_docstring(node.body)
            # Later Pythons have more fields, empty where the source says nothing of them.
            if name not in _UNSEEN and value is not None and value != []:
                yield f"{name}="
                yield from _written(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for part in node:
            yield from _written(part)
        yield "]"
    else:
        yield _constant(node)


def _merged(values: list[ast.expr]) -> list[ast.expr]:
    """Return the parts of an f-string with its texts in as few pieces as there can be."""
    merged: list[ast.expr] = []
    for value in values:
        match value, merged:
            case ast.Constant(value=""), _:
                continue
            case ast.Constant(value=str() as more), [*_, ast.Constant(value=str() as text)]:
                merged[-1] = ast.Constant(text + more)
            case _:
                merged.append(value)
    return merged


def _constant(value: object) -> str:
    """Return a constant of source or bytecode as text, whatever order its set has here."""
    if isinstance(value, CodeType):
        return _steps(value)
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_constant, value)))}}}"
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    return hex(value) if type(value) is int else repr(value)


def _steps(code: CodeType) -> str:
    """Return bytecode as text: what its instructions are and what they are about, by name."""
    arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    said = [repr((arguments, code.co_flags & _FLAGS, code.co_varnames[: sum(arguments[::2])]))]
    steps = [step for step in dis.get_instructions(code) if step.opname not in _IDLE]
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        names = [one.argval for one in (step, after) if one and one.opname == "STORE_NAME"]
        if _ABOUT_A_CLASS.isdisjoint(map(str, names)):
            said.append(f"{step.opname} {_constant(step.argval)}")
    return "\n".join([*said, code.co_exceptiontable.hex()])
