"""Skip tests whose optional packages or programs are missing; in CI they fail instead."""

import importlib.util
import os
import shutil

import pytest


def needs(*names: str) -> None:
    """
    Skip the calling test, or at the top of a file the whole file, where one of these is missing.

    A name is an importable module or an executable on the path. With the environment variable CI
    set a missing one is a failure, so that nothing is skipped there unnoticed.
    """
    missing = [name for name in names if not _is_there(name)]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def _is_there(name: str) -> bool:
    """Tell whether a module or an executable of this name can be found."""
    return importlib.util.find_spec(name) is not None or shutil.which(name) is not None
