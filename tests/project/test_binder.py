"""The Binder image, as far as it can be checked without building it; `binder/check` builds it."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
BINDER = ROOT / "binder"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_installs_this_project_with_extras_that_exist():
    """A missing extra is only a warning in pip, but an import error for a reader."""
    (line,) = (BINDER / "requirements.txt").read_text(encoding="utf-8").split()
    assert line.startswith(".[")
    extras = Requirement(f"ragasync{line[1:]}").extras
    assert {"lab"} <= extras <= PROJECT["optional-dependencies"].keys()


def test_its_python_is_one_that_the_project_allows():
    """runtime.txt names a minor version; the newest of it counts."""
    version = re.fullmatch(r"python-(3\.\d+)\n", (BINDER / "runtime.txt").read_text())
    assert version
    assert f"{version[1]}.99" in SpecifierSet(PROJECT["requires-python"])


def test_it_brings_the_server_that_the_redis_extra_talks_to():
    """From the system's packages, because pip has none."""
    assert "redis-server" in (BINDER / "apt.txt").read_text(encoding="utf-8").split()


@pytest.mark.real_time
def test_it_runs_the_given_command_on_the_first_notebook():
    """The image gives the command; `start` adds which notebook to open, and it exists."""
    command = ["printf", "%s\n", "jupyter", "lab", "a word"]
    started = subprocess.run(
        [BINDER / "start", *command], capture_output=True, text=True, timeout=20, check=True
    )
    *given, option = started.stdout.splitlines()
    assert given == command[2:]
    name, _, url = option.partition("=")
    assert name == "--LabApp.default_url"
    notebook = ROOT / url.removeprefix("/lab/tree/")
    assert notebook == min((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", ["start", "check"])
def test_its_scripts_can_be_run(name: str):
    """They are executable, and bash finds nothing wrong with them."""
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", BINDER / name], timeout=20, check=True)
