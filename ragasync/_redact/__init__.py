"""
Redaction: replaces the secrets that a text quotes by `***`, before anything shows the text.

    text.py       redact: applies each rule that a sign in the text calls for
    names.py      the values that follow the name of a secret: api_key=..., "password": "..."
    patterns.py   word lists and regular expressions: names, key prefixes, shapes of values

A text is cut to a few kilobytes by `ragasync.error_text` before it comes here. `redact` looks for
cheap signs ("://", "earer ", "key") and runs only the expressions that these call for; then it
finds key prefixes such as `sk-`, and values that follow a secret's name. It repeats that until
nothing changes, because a mask may uncover another secret.
"""

from ragasync._redact.text import MASK, redact

__all__ = ["MASK", "redact"]
