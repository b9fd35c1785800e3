"""Digests of a function's code: of its normalised source, or else of its bytecode."""

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
"""The source of a function, as an AST node."""

ANY: Final = ""
"""In a set of changed names: any name may be changed."""

BYTECODE: Final = f"bytecode-{sys.version_info.major}.{sys.version_info.minor}"
"""The scheme of a digest that only the same Python version can compare."""

_LARGEST_FILE: Final = 1 << 19
"""Maximum size of a file to parse, in characters; a larger one is generated."""

_CHANGING: Final = frozenset(
    """add append appendleft clear discard extend extendleft insert pop popitem popleft remove
    reverse setdefault sort subtract update""".split()  # noqa: SIM905  # easier to read
)
"""Methods that change a list, dict, set, deque or Counter."""

_CONTAINERS: Final = frozenset({"dict", "list", "set", "Counter", "OrderedDict", "bytearray"})

_UNSEEN: Final = frozenset({"ctx", "kind", "type_comment", "type_ignores", "annotation", "returns"})
"""Fields of AST nodes that do not affect what a call does."""

_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUTURE: Final = __future__.annotations.compiler_flag
_FLAGS: Final = 0x2AC  # *args, **kwargs, generator, coroutine, async generator
_IDLE: Final = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "RESUME"})
_ABOUT_A_CLASS: Final = frozenset({"__doc__", "__firstlineno__", "__static_attributes__"})
_READS_GLOBAL: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_READS_ATTRIBUTE: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"})


def digest(text: str) -> str:
    """Digest of a string as 20 hex digits, the same in every process."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=10).hexdigest()


@dataclass(slots=True)
class Names:
    """
    The names that the code of a function, and of nested functions, reads and sets.

    Args:
        globals: global names that it reads.
        attributes: attributes of any object that it reads.
        rebound: names of an outer scope that it assigns to.
        stored: attributes of any object that it sets.
    """

    globals: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    rebound: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)


def names_in(code: CodeType) -> Names:
    """Names that a code object reads and sets."""
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
    Digest of a function's source that does not depend on formatting.

    Positions, comments, docstrings and annotations do not count. Neither do the name, decorators
    and defaults of the function itself, because their values are fingerprinted. The digest is the
    same for every Python that parses the source to the same tree.
    """
    body = node.body if isinstance(node, ast.Lambda) else _without_docstring(node.body)
    kinds = node.args.posonlyargs, node.args.args, node.args.kwonlyargs
    parts = [type(node).__name__, repr([[one.arg for one in kind] for kind in kinds])]
    parts += [repr(more and more.arg) for more in (node.args.vararg, node.args.kwarg)]
    parts += _written(body)
    return f"source:{digest(' '.join(parts))}"


def digest_of_bytecode(code: CodeType) -> str:
    """Digest of bytecode without file, lines and docstrings, valid for this Python version only."""
    return f"{BYTECODE}:{digest(_steps(code))}"


@dataclass(slots=True)
class Changes:
    """
    The outside variables and attributes that a function changes.

    Args:
        names: variables whose lists, dicts or sets it changes in place; ANY if this is unknown.
        attributes: attributes whose lists, dicts or sets it changes in place; ANY if unknown.
        rebound: names of an outer scope that it assigns to.
    """

    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    rebound: set[str] = field(default_factory=set)

    def add(self, other: Changes) -> None:
        """Add the changes made by another function."""
        self.names |= other.names
        self.attributes |= other.attributes
        self.rebound |= other.rebound


def changed_in_place(node: FunctionNode | None) -> Changes:
    """Changes that a function makes in place, by its source; unknown without source."""
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
    """Record a changed variable, and the attributes on the path to the changed object."""
    while isinstance(owner, ast.Subscript | ast.Attribute):
        if isinstance(owner, ast.Attribute):
            changes.attributes.add(owner.attr)
        owner = owner.value
    if isinstance(owner, ast.Name):
        changes.names.add(owner.id)


def set_to_nothing(node: FunctionNode) -> set[str]:
    """Attributes that a constructor sets to an empty list, dict or similar."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            if _is_empty(part.value):
                names |= {target.attr for target in targets if isinstance(target, ast.Attribute)}
    return names


def _is_empty(value: ast.expr) -> bool:
    """Whether an expression creates an empty container, such as `[]` or `dict()`."""
    match value:
        case ast.List(elts=[]) | ast.Dict(keys=[]):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments):
            is_bare = not arguments and not value.keywords
            return name == "defaultdict" or (is_bare and name in _CONTAINERS)
    return False


_Location: TypeAlias = tuple[str, int]
"""The name of a function and its first line."""


@dataclass(frozen=True, slots=True)
class _File:
    """The functions of a file, as AST nodes and as code objects, by location."""

    nodes: dict[_Location, list[FunctionNode]] = field(default_factory=dict)
    codes: dict[_Location, list[CodeType]] = field(default_factory=dict)


class Sources:
    """Source files of functions, each parsed once, and again only if its text has changed."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int], tuple[list[str], _File]] = {}

    def node_of(self, function: FunctionType) -> FunctionNode | None:
        """
        AST node of a function, if its file still contains the source of this code.

        The file may have been edited since it was imported, so the source is compiled again and
        must give the same code object.
        """
        code = function.__code__
        flags, place = code.co_flags & _FUTURE, (code.co_name, code.co_firstlineno)
        for is_reread in (False, True):
            if is_reread:
                linecache.checkcache(code.co_filename)
            file = self._parsed(code.co_filename, flags, function.__globals__)
            if code in file.codes.get(place, ()):
                return _node_of(file.nodes.get(place, []), code)
        return None

    def _parsed(self, filename: str, flags: int, module_globals: dict[str, object]) -> _File:
        """Functions of a file; none if it cannot be read and parsed."""
        lines: list[str] = []
        with suppress(Exception):  # from a foreign loader
            lines = linecache.getlines(filename, module_globals)
        known, file = self._files.get((filename, flags), (None, _File()))
        # linecache gives the same list until it has read the file again. Code that differs from
        # its source, as pytest's does, would have the file parsed for each of its functions.
        if lines is not known:
            file = _File()
            with suppress(Exception):  # not Python
                if 0 < len(text := "".join(lines)) <= _LARGEST_FILE:
                    file = _parse(text, filename, flags)
            self._files[filename, flags] = lines, file
        return file


def _parse(text: str, filename: str, flags: int) -> _File:
    """
    Parse and compile a source text, and collect its functions.

    A notebook cell may have a top-level await, and inherits __future__ imports of earlier cells.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python gave them when it compiled the file
        tree = ast.parse(text, filename)
        flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        module = compile(tree, filename, "exec", flags, dont_inherit=True)
    file = _File()
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
    """A code object and all code objects nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _node_of(nodes: list[FunctionNode], code: CodeType) -> FunctionNode | None:
    """The function, of several at one location, that a code object was compiled from."""
    if len(nodes) > 1:  # lambdas on one line differ in their columns
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
        nodes.sort(key=lambda node: _span(node)[0], reverse=True)  # the innermost first
    return nodes[0] if nodes else None


def _span(node: FunctionNode) -> tuple[tuple[int, int], tuple[int, int]]:
    """Start and end of a function, as (line, column)."""
    first, last = (node.body, node.body) if isinstance(node, ast.Lambda) else (node, node)
    return (first.lineno, first.col_offset), (last.end_lineno or 0, last.end_col_offset or 0)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body without its docstring, or `pass` if nothing else is left."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest or [ast.Pass()]
    return body


def _written(node: object) -> Iterator[str]:
    """Text of an AST, without fields that depend on formatting or the Python version."""
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
            # Newer Pythons add fields, which are empty unless the source uses them.
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
    """Parts of an f-string with adjacent strings merged; Pythons split them differently."""
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
    """A constant of source or bytecode as text, with sets in sorted order."""
    if isinstance(value, CodeType):
        return _steps(value)
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_constant, value)))}}}"
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    return hex(value) if type(value) is int else repr(value)


def _steps(code: CodeType) -> str:
    """Bytecode as text: instructions with their arguments by name."""
    arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    said = [repr((arguments, code.co_flags & _FLAGS, code.co_varnames[: sum(arguments[::2])]))]
    steps = [step for step in dis.get_instructions(code) if step.opname not in _IDLE]
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        names = [one.argval for one in (step, after) if one and one.opname == "STORE_NAME"]
        if _ABOUT_A_CLASS.isdisjoint(map(str, names)):
            said.append(f"{step.opname} {_constant(step.argval)}")
    return "\n".join([*said, code.co_exceptiontable.hex()])
