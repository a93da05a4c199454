"""Numbers with their nouns, for messages to people."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 row`` or ``1,200 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
