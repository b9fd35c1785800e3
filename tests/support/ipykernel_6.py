"""ipykernel 6 in addition to the installed 7: in a folder that a kernel searches first."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.requirements import go_without, needs

WANTED = ("ipykernel<7", "nest-asyncio")
"""What version 6 needs that version 7 does not bring; the rest of its dependencies is there."""


def folder_with_ipykernel_6(cache: Path) -> Path:
    """
    Return a folder for PYTHONPATH whose ipykernel is of version 6.

    Where it cannot be installed, the calling test is skipped; in CI it fails.

    Args:
        cache: where to keep it for the next run.
    """
    needs("pip")
    folder = cache / f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
        done = subprocess.run(
            [*install, str(unfinished), *WANTED], capture_output=True, text=True, timeout=100
        )
        if done.returncode:
            go_without(f"ipykernel 6 cannot be installed: {done.stderr.strip()[-300:]}")
        unfinished.rename(folder)
    return folder
