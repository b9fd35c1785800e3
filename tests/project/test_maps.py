"""The maps: each package's docstring has a line for each of its modules, and no other."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import ragasync

ROOT = Path(__file__).parents[2]
PACKAGE = Path(ragasync.__file__).parent

pytestmark = pytest.mark.slow  # it reads the same files with every Python

PACKAGES = sorted(file.parent for file in PACKAGE.glob("*/**/__init__.py"))

LINE = re.compile(r"^    (\w+\.py|\w+/) {2,}\S", re.MULTILINE)
"""A line of a map: four spaces, a module or a package, and after two spaces what it is."""


def docstring(package: Path) -> str:
    """The docstring of a package, read and not imported."""
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))) or ""


def modules(package: Path) -> list[str]:
    """The modules and subpackages of a package, named as in its map."""
    files = [path.name for path in package.glob("*.py") if not path.name.startswith("__")]
    return sorted(files + [f"{path.parent.name}/" for path in package.glob("*/__init__.py")])


def layers_shown() -> list[list[str]]:
    """The names in each line of the table of layers in the package's docstring."""
    _, _, table = docstring(PACKAGE).partition("The layers, top down")
    lines = re.findall(r"^    (\w+(?: \w+)*)(?: {2,}\S.*)?$", table, re.MULTILINE)
    return [line.split() for line in lines]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_map_names_each_module_of_its_package_once(package: Path):
    """And no module that does not exist."""
    assert sorted(LINE.findall(docstring(package))) == modules(package)


def test_the_layers_in_the_docstring_are_those_that_are_checked():
    """One line per layer, from the top, with the modules that import-linter checks there."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = [
        {name.removeprefix("ragasync.") for name in re.split(r" [|:] ", layer)}
        for layer in contracts["contracts"][0]["layers"]
    ]
    assert [set(layer) for layer in layers_shown()] == layers


def test_every_module_of_the_package_is_in_a_layer():
    """A new module is added to a layer and to the table."""
    named = sorted(name for layer in layers_shown() for name in layer)
    assert named == sorted(name.removesuffix(".py").rstrip("/") for name in modules(PACKAGE))
