"""
Skip tests whose optional packages, programs or platform are missing; in CI they fail instead.

Every skip comes from here, so that nothing is skipped in CI unnoticed. What CI tests in another of
its steps is skipped everywhere else, and the reason names that step.
"""

import importlib.util
import os
import shutil
import sys
from typing import NoReturn

import pytest


def needs(*names: str) -> None:
    """
    Skip the calling test, or at the top of a file the whole file, where one of these is missing.

    A name is an importable module or an executable on the path. With the environment variable CI
    set a missing one is a failure.
    """
    if missing := _missing(names):
        go_without(f"not installed: {missing}")


def go_without(reason: str) -> NoReturn:
    """Skip the calling test, or the whole file, with this reason; in CI fail instead."""
    if _in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def go_without_in_ci_too(reason: str) -> NoReturn:
    """Skip the calling test even in CI, which has no step for it: somebody runs it by hand."""
    pytest.skip(f"{reason}; not a part of CI")


def only_where(condition: bool, reason: str) -> pytest.MarkDecorator:
    """Mark tests to be skipped unless a condition holds; in CI they run, and fail, without it."""
    return pytest.mark.skipif(not (condition or _in_ci()), reason=reason)


# ── what has a step of its own in CI ────────────────────────────────────────────────────────────


def needs_in_step(step: str, *names: str) -> None:
    """
    Skip like `needs`, in CI too, except in the step of .ci/run that installs these modules.

    That step has its name in the environment variable RAGASYNC_STEP.
    """
    if missing := _missing(names):
        if _in_ci() and os.environ.get("RAGASYNC_STEP") == step:
            go_without(f"not installed: {missing}")
        pytest.skip(f"not installed: {missing}; CI's step: {step}", allow_module_level=True)


def run_in_step(step: str, reason: str, *, is_here: bool) -> pytest.MarkDecorator:
    """Mark tests to be skipped unless this is where they run; in CI a step of this name does."""
    return pytest.mark.skipif(not is_here, reason=f"{reason}; CI's step: {step}")


needs_eager_tasks = run_in_step(
    "core on Python 3.12", "eager tasks came with Python 3.12", is_here=sys.version_info >= (3, 12)
)


def _in_ci() -> bool:
    """Whether the environment variable CI is set."""
    return bool(os.environ.get("CI"))


def _missing(names: tuple[str, ...]) -> str:
    """List the names that are neither modules nor executables."""
    return ", ".join(name for name in names if not _is_there(name))


def _is_there(name: str) -> bool:
    """Whether a module or an executable of this name exists."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # the package that a submodule would be in
        found = None
    return found is not None or shutil.which(name) is not None
