"""What is public, and what its docstrings say: those of values too, which stand below them."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from itertools import pairwise
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "ragasync"

MODULES = ("ragasync", "ragasync.documents", "ragasync.simulation", "ragasync.testing")
"""Where public names are imported from: what is in `__all__` there."""

PAGES = (
    *MODULES[:1],
    *(f"ragasync.{name}" for name in ("documents", "errors", "journal", "notebook", "plots")),
    *(f"ragasync.{name}" for name in ("redis", "simulation", "testing")),
)
"""The modules with a page in the API reference; a name may be on two of them."""


def public_names() -> list[tuple[str, str]]:
    """List every module with every public name in it."""
    return [(module, name) for module in MODULES for name in names_of(module)]


def names_of(module: str) -> list[str]:
    """List the public names of a module: its `__all__`, or the classes that it defines."""
    content = vars(import_module(module))
    own = [name for name, each in content.items() if getattr(each, "__module__", "") == module]
    return list(content.get("__all__", [name for name in own if not name.startswith("_")]))


def carries_its_docstring(thing: object) -> bool:
    """Check whether something is a class or a function; a value has the docstring of its type."""
    return inspect.isclass(thing) or inspect.isfunction(thing)


def docstring_of(module: str, name: str) -> str:
    """Find the docstring of a public name; empty if there is none."""
    thing = getattr(import_module(module), name)
    if carries_its_docstring(thing):
        return inspect.getdoc(thing) or ""
    for path in sorted(PACKAGE.rglob("*.py")):
        for statement, after in pairwise(ast.parse(path.read_text(encoding="utf-8")).body):
            match statement, after:
                case (
                    (
                        ast.AnnAssign(target=ast.Name(id=assigned))
                        | ast.Assign(targets=[ast.Name(id=assigned)])
                    ),
                    ast.Expr(ast.Constant(str(text))),
                ) if assigned == name:
                    return inspect.cleandoc(text)
    return ""
