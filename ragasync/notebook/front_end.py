"""What shows a notebook's output: whether there is one, and how a mime bundle gets there."""

from __future__ import annotations

import sys
import uuid


def in_kernel() -> bool:
    """Return whether this runs in a Jupyter kernel, without importing anything for it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def show_bundle(bundle: dict[str, object], place: str = "") -> str:
    """
    Show a mime bundle, and return the place that it is in.

    Args:
        bundle: what to show, by mime type: the front end takes the richest that it knows.
        place: where an earlier bundle is, which this one replaces; by default a new place.
    """
    from IPython.display import display

    new = place or uuid.uuid4().hex
    display(bundle, raw=True, display_id=new, update=bool(place))
    return new
