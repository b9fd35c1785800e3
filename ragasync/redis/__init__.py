"""A limit that processes and machines share, kept in Redis."""

from __future__ import annotations

__all__: list[str] = []
