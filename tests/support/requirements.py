"""Skip tests whose optional packages or programs are missing; in CI they fail instead."""

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest


def needs(*names: str) -> None:
    """
    Skip the calling test, or at the top of a file the whole file, where one of these is missing.

    A name is an importable module or an executable on the path. With the environment variable CI
    set a missing one is a failure, so that nothing is skipped there unnoticed.
    """
    missing = [name for name in names if not _is_there(name)]
    if missing:
        go_without(f"not installed: {', '.join(missing)}")


def go_without(reason: str) -> NoReturn:
    """Skip the calling test, or the whole file, with this reason; in CI fail instead."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def _is_there(name: str) -> bool:
    """Whether a module or an executable of this name exists."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # the package that a submodule would be in
        found = None
    return found is not None or shutil.which(name) is not None
