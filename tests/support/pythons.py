"""Other minor versions of Python that have what the core needs, where this machine has any."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.support.requirements import go_without


@cache
def other_pythons() -> tuple[Path, ...]:
    """Return one of each: those that RAGASYNC_PYTHONS lists, or virtual ones named venv-3.*."""
    listed = os.environ.get("RAGASYNC_PYTHONS", "").split(os.pathsep)
    found = map(Path, filter(None, listed))
    virtual = sorted(Path(tempfile.gettempdir()).glob("venv-3.*/bin/python"))
    versions = {f"{sys.version_info.major}.{sys.version_info.minor}"}
    pythons = []
    for python in filter(Path.exists, [*found, *virtual]):
        asked = "import sys, numpy, pandas, tqdm; print('%d.%d' % sys.version_info[:2])"
        ran = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
        if ran.returncode == 0 and ran.stdout not in versions:
            versions.add(ran.stdout)
            pythons.append(python)
    return tuple(pythons)


def needs_other_pythons() -> tuple[Path, ...]:
    """Return them; without any, skip the calling test, or fail it in CI."""
    return other_pythons() or go_without("no other Python with numpy, pandas and tqdm")
