"""Display of mime bundles: whether a notebook shows them, and how one is shown and replaced."""

from __future__ import annotations

import sys
import uuid

REFRESH_INTERVAL = 0.1
"""Seconds between two updates: the front end drops messages that come much faster."""


def in_kernel() -> bool:
    """Check whether this is a Jupyter kernel, without importing IPython for it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def show_bundle(bundle: dict[str, object], display_id: str = "") -> str:
    """
    Show a mime bundle, and return its display id.

    Args:
        bundle: the content by mime type; the front end shows the richest type that it supports.
        display_id: the display id of an earlier bundle to replace; by default, a new output.
    """
    from IPython.display import display

    new_id = display_id or uuid.uuid4().hex
    display(bundle, raw=True, display_id=new_id, update=bool(display_id))
    return new_id
