"""Elements of HTML whose style travels with them, and the colours that all pictures share."""

from __future__ import annotations

from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED, PENDING

# JupyterLab drops `var(...)` from HTML that it does not trust. So what must be seen has a plain
# colour that reads on dark and on light, and variables are for what may fall back to inherited.
COLOURS = {DONE: "#4c8dd6", FAILED: "#e0563f", CANCELLED: "#b8892b", PENDING: "#9a9a9a"}
NAMES = {DONE: "done", FAILED: "failed", CANCELLED: "cancelled", PENDING: "pending"}

TEXT = "color:var(--jp-content-font-color1,inherit);font-size:13px;line-height:1.5;max-width:640px"
QUIET = "opacity:0.7"
MONO = "font-family:var(--jp-code-font-family,monospace);font-size:12px"


def element(tag: str, style: str, *children: str) -> str:
    """Return an element around children that are HTML already."""
    opening = f'<{tag} style="{style}">' if style else f"<{tag}>"
    return f"{opening}{''.join(children)}</{tag}>"
