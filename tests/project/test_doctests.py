"""Every public name has an example in its docstring, and the examples are correct."""

import doctest
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.reference.public import PACKAGE, carries_its_docstring, docstring_of, public_names
from tests.support.requirements import needs

pytestmark = pytest.mark.real_time

NEEDED = {
    "AsyncRedisConnection": "redis",
    "LanceStore": "lancedb",
    "RedisRateLimiter": "redis",
    "RedisUnavailable": "redis",
    "SemanticTextSplitter": "semantic_text_splitter",
    "WordLlamaEmbedder": "wordllama",
    "plot_latency": "matplotlib",
    "plot_throughput": "matplotlib",
    "plot_timeline": "matplotlib",
}
"""The packages that a name's example needs, in addition to those of ragasync itself."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
"""Long lines are cut by `...`, and pandas leaves spaces at the ends of its lines."""


@pytest.mark.parametrize(("module", "name"), public_names())
def test_a_public_name_has_an_example_that_runs(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It runs as it would be copied: with its own imports, in an empty folder."""
    if needed := NEEDED.get(name):
        needs(needed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    examples = doctest.DocTestParser().get_doctest(docstring_of(module, name), {}, name, None, None)
    assert examples.examples, f"{module}.{name} has no example"
    _run(examples)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def test_the_other_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The examples of methods and of internal names."""
    monkeypatch.chdir(tmp_path)
    things = [getattr(import_module(module), name) for module, name in public_names()]
    public = {
        f"{thing.__module__}.{thing.__qualname__}"
        for thing in things
        if carries_its_docstring(thing)
    }
    finder, ran = doctest.DocTestFinder(exclude_empty=True), 0
    for module in _modules_with_examples():
        for examples in finder.find(module):
            if examples.examples and examples.name not in public:
                _run(examples)
                ran += 1
    assert ran


def _run(examples: doctest.DocTest) -> None:
    """Run some examples; the first wrong one is shown with its output."""
    report: list[str] = []
    failed = doctest.DocTestRunner(optionflags=FLAGS | doctest.REPORT_NDIFF).run(
        examples, out=report.append
    )
    assert not failed.failed, "".join(report)


def _modules_with_examples() -> list[ModuleType]:
    """Import the modules that have examples; a package by its own name, not again as `__init__`."""
    paths = [
        path.relative_to(PACKAGE.parent).with_suffix("")
        for path in sorted(PACKAGE.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]
    return [
        import_module(".".join(part for part in path.parts if part != "__init__")) for path in paths
    ]
