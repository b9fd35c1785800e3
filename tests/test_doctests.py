"""Every public name has an example in its docstring, and the examples give what they show."""

import ast
import doctest
import importlib
import inspect
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
from needs import needs

pytestmark = pytest.mark.real_time

PUBLIC = ("ragasync", "ragasync.documents")
NEEDED = {
    "AsyncRedisConnection": "redis",
    "LanceStore": "lancedb",
    "RedisRateLimiter": "redis",
    "RedisUnavailable": "redis",
    "SemanticSplitter": "semantic_text_splitter",
    "WordLlamaEmbedder": "wordllama",
    "plot_latency": "matplotlib",
    "plot_throughput": "matplotlib",
    "plot_timeline": "matplotlib",
}
"""What must be installed for a name's example, beside what ragasync itself needs."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
"""Long lines are cut by `...`, and pandas leaves spaces at the ends of its lines."""

NAMES = [
    f"{module}.{name}" for module in PUBLIC for name in importlib.import_module(module).__all__
]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It runs as it would be copied: with its own imports, in an empty folder."""
    if needed := NEEDED.get(name.rpartition(".")[2]):
        needs(needed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    examples = doctest.DocTestParser().get_doctest(_docstring(name), {}, name, None, None)
    assert examples.examples, f"{name} has no example"
    _run(examples)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def test_the_other_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those of methods and of what is not public."""
    monkeypatch.chdir(tmp_path)
    public = {_object(name) for name in NAMES if _is_documented_itself(name)}
    finder, ran = doctest.DocTestFinder(exclude_empty=True), 0
    for module in _modules_with_examples():
        for examples in finder.find(module):
            if examples.examples and not _is_of(examples.name, public):
                _run(examples)
                ran += 1
    assert ran


def _run(examples: doctest.DocTest) -> None:
    """Run some examples; the first that gives something else is shown, with what it gave."""
    report: list[str] = []
    failed = doctest.DocTestRunner(optionflags=FLAGS | doctest.REPORT_NDIFF).run(
        examples, out=report.append
    )
    assert not failed.failed, "".join(report)


def _object(name: str) -> object:
    """Return what a public name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def _is_documented_itself(name: str) -> bool:
    """Tell whether a name is a class or function, which carry their docstrings, or a value."""
    return inspect.isclass(_object(name)) or inspect.isfunction(_object(name))


def _docstring(name: str) -> str:
    """Return a name's docstring; of a value the text below its assignment."""
    if _is_documented_itself(name):
        return inspect.getdoc(_object(name)) or ""
    last = name.rpartition(".")[2]
    for path in _sources():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, after in itertools.pairwise(body):
            if _assigned(statement) == last:
                match after:
                    case ast.Expr(ast.Constant(str(text))):
                        return inspect.cleandoc(text)
    return ""


def _assigned(statement: ast.stmt) -> str | None:
    """Return the name that an assignment is to."""
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


def _is_of(name: str, objects: set[object]) -> bool:
    """Tell whether the examples of this name are the docstring of one of these."""
    return any(
        name == f"{each.__module__}.{each.__qualname__}"  # type: ignore[attr-defined]
        for each in objects
    )


def _sources() -> list[Path]:
    """Return the files of the package."""
    return sorted((Path(__file__).parents[1] / "ragasync").rglob("*.py"))


def _modules_with_examples() -> list[ModuleType]:
    """Return the modules that have any, imported."""
    root = Path(__file__).parents[1]
    return [
        importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
        for path in _sources()
        if ">>> " in path.read_text(encoding="utf-8")
    ]
