"""Rules for the source: no SQL built from values, and no code from data."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ragasync

pytestmark = pytest.mark.slow  # it reads the same files with every Python

FILES = sorted(Path(ragasync.__file__).parent.rglob("*.py"))

SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER|ATTACH|WITH)\b")
RUNS_SQL = {"execute", "executemany", "executescript"}
MAKES_OBJECTS = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
MAY_MAKE_OBJECTS = {
    "_function_fingerprint/code.py": {
        "compile"
    },  # a function's own source, to see whether it is what runs
    "journal/serializers.py": {"pickle"},  # where the user has chosen it by name
    "_calls/pickling.py": {"pickle", "cloudpickle"},  # between this process and its own workers
    "_calls/remote_errors.py": {"pickle"},  # the same, for errors on their way back
    "documents/embedders/__init__.py": {"pickle"},  # the same, for texts on their way to a worker
}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}


def problems(code: str, name: str = "some.py") -> list[str]:
    """Return the lines of some code that break a rule."""
    allowed = MAY_MAKE_OBJECTS.get(name, set())
    return [
        f"{name}:{node.lineno}: {said}"
        for node in ast.walk(ast.parse(code))
        for said in _said_of(node, allowed)
        if isinstance(node, ast.stmt | ast.expr)
    ]


def _said_of(node: ast.AST, allowed: set[str]) -> Iterator[str]:
    """Yield what is wrong with one node."""
    match node:
        case ast.Import(names=names):
            modules = {alias.name.partition(".")[0] for alias in names}
            yield from _forbidden(modules, allowed)
        case ast.ImportFrom(module=str(module)):
            yield from _forbidden({module.partition(".")[0]}, allowed)
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]) if SQL.match(start):
            yield f"the SQL is built here: {ast.unparse(node)}"
        case ast.Call(func=ast.Name(id=function)) if function in RUNS_CODE - allowed:
            yield f"{function} runs code"
        case ast.Call(func=ast.Attribute(attr="load"), keywords=keywords):
            yield from _loads_objects(keywords)
        case ast.Call(func=ast.Attribute(attr=method), args=[statement, *_]) if method in RUNS_SQL:
            if not _is_fixed(statement):
                yield f"the SQL is built here: {ast.unparse(statement)}"


def _forbidden(modules: set[str], allowed: set[str]) -> Iterator[str]:
    """Yield the modules among these that create objects from bytes."""
    for module in sorted(modules & MAKES_OBJECTS - allowed):
        yield f"{module} creates objects from bytes"


def _loads_objects(keywords: list[ast.keyword]) -> Iterator[str]:
    """Yield whether numpy is allowed to unpickle."""
    for keyword in keywords:
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
            yield "numpy may unpickle"


def _is_fixed(statement: ast.expr) -> bool:
    """Return whether SQL is a literal or a name, and is not built here."""
    match statement:
        case ast.Constant(value=str()) | ast.Name() | ast.Attribute():
            return True
        case ast.IfExp(body=one, orelse=other):
            return _is_fixed(one) and _is_fixed(other)
    return False


def test_there_is_code_to_look_at():
    """Some of it is SQL."""
    assert len(FILES) > 100
    assert any("execute(" in path.read_text() for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_values_are_never_part_of_sql_and_data_never_becomes_code(path: Path):
    """Values are passed as parameters; pickles are read only if requested by name."""
    name = path.relative_to(Path(ragasync.__file__).parent).as_posix()
    assert problems(path.read_text(), name) == []


@pytest.mark.parametrize(
    "code",
    [
        'db.execute(f"SELECT {x}")',
        'db.execute("SELECT %s" % x)',
        'db.execute("SELECT " + x)',
        'db.executemany("SELECT {}".format(x), rows)',
        'statement = f"DELETE FROM documents WHERE id = {x}"',
        "db.executescript(make(x))",
        "import pickle",
        "from pickle import loads",
        "import numpy as np\nnp.load(file, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_the_look_finds_what_it_is_for(code: str):
    """Each kind of problem is found."""
    assert problems(code)


def test_the_look_passes_what_is_safe():
    """Literals, names, parameters and regular expressions are fine."""
    code = 'db.execute("SELECT ?", (x,)); db.execute(FIND, (x,)); re.compile(x); json.load(file)'
    assert problems(code) == []
