"""Reads in the text of SQL which statements it has, and how the first of them that ends a transaction ends it."""

from __future__ import annotations

import re
from typing import Literal

_TOKEN = re.compile(
    r"(?<!\w)[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    r"|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<end>;)",
    re.DOTALL,
)
# The body of a function in standard SQL ends with END.
_SQL_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)
_MAY_CONTROL = re.compile(r"\b(COMMIT|END|ROLLBACK|ABORT|BEGIN|TRANSACTION)\b", re.IGNORECASE)
_CHAIN = r"(?:\s+(?:WORK|TRANSACTION))?(?:\s+AND\s+(?:NO\s+)?CHAIN)?"
_COMMIT = re.compile(rf"(?:COMMIT|END){_CHAIN}", re.IGNORECASE)
# A prepared transaction is not visible until another statement commits it.
_ROLLBACK = re.compile(rf"(?:ROLLBACK|ABORT){_CHAIN}|PREPARE\s+TRANSACTION\b.*", re.IGNORECASE | re.DOTALL)


def may_control_transaction(text: str) -> bool:
    """Return whether a statement of the text may begin or end a transaction."""
    return _MAY_CONTROL.search(text) is not None and not _SQL_BODY.search(text)


def split(text: str) -> list[str]:
    """Return the statements of a text."""
    ends = [found.start() for found in _TOKEN.finditer(text) if found["end"]]
    return [text[start:end] for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)]


def end_of_transaction(text: str) -> Literal["commit", "rollback"] | None:
    """Return how the text ends the transaction in which it runs, or None if it does not."""
    if not may_control_transaction(text):
        return None
    for each in split(text):
        statement = _TOKEN.sub(lambda found: " " if found["comment"] else found[0], each).strip()
        if _COMMIT.fullmatch(statement):
            return "commit"
        if _ROLLBACK.fullmatch(statement):
            return "rollback"
    return None
