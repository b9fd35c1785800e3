"""Pictures and other binary data that stand inside a text as base64 or as a `data:` URI."""

from __future__ import annotations

import re

_DATA_URI = re.compile(
    r"""\bdata:([\w.+-]{1,80}/[\w.+-]{1,80})?[^\s,()"'<>]{0,200},[^\s()"'<>]{100,}"""
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{1000,}={0,2}")


def without_embedded_data(text: str) -> str:
    """
    Return a text without the binary data in it, which nobody wrote and nobody searches for.

    Of a `data:` URI, its kind is left; of a run of base64 of a thousand characters and more, `…`.
    Line ends stay, so that the numbers of lines are those of the file.

    Example:
        >>> from ragasync.documents.loaders.embedded_data import without_embedded_data
        >>> without_embedded_data(f"see ![a plot](data:image/png;base64,{'iVBORw0K' * 20}) here")
        'see ![a plot](data:image/png) here'
    """
    if len(text) < 100:
        return text
    if "data:" in text:
        text = _DATA_URI.sub(lambda uri: f"data:{uri[1] or ''}", text)
    return _BASE64.sub("…", text) if len(text) >= 1000 else text
