"""Reads in the text of SQL which statements it has, and how the first of them that ends a transaction ends it.

The rules are those of PostgreSQL's manual, "Lexical Structure". A text that is not closed reaches to the end. Each
character is read once, so that a text of any form takes a time in proportion to its length.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

_PART = re.compile(
    r"""--[^\n]* | /\* | [eE]' | ' | " | \$(?:[^\W\d]\w*)?\$ | ; | [^\W\d][\w$]*""",
    re.VERBOSE,
)
_IN_COMMENT = re.compile(r"/\*|\*/")
_REST_WITH_ESCAPES = re.compile(r"(?:[^'\\]|\\.)*'", re.DOTALL)
_COMMENTS = ("--", "/*")

_MAY_CONTROL = re.compile(r"\b(COMMIT|END|ROLLBACK|ABORT|BEGIN|TRANSACTION)\b", re.IGNORECASE)
_CHAIN = r"(?:\s+(?:WORK|TRANSACTION))?(?:\s+AND\s+(?:NO\s+)?CHAIN)?"
_COMMIT = re.compile(rf"(?:COMMIT|END){_CHAIN}", re.IGNORECASE)
# A prepared transaction is not visible until another statement commits it.
_ROLLBACK = re.compile(
    rf"(?:ROLLBACK|ABORT){_CHAIN}|PREPARE\s+TRANSACTION\s+(?:e|u&)?['$].*", re.IGNORECASE | re.DOTALL
)


def may_control_transaction(text: str) -> bool:
    """Return whether a statement of the text may begin or end a transaction."""
    return _MAY_CONTROL.search(text) is not None


def split(text: str) -> list[str]:
    """Return the statements of a text."""
    statements, begin, depth, previous = [], 0, 0, ""
    for part, start, end in _parts(text):
        if part == ";":
            if depth == 0:
                statements.append(text[begin:start])
                begin = end
        elif part[0].isalpha() or part[0] == "_":
            word = part.upper()
            # The body of a function in standard SQL has statements of its own, and CASE ends with END, too.
            if depth:
                depth += (word == "CASE") - (word == "END")
            elif (previous, word) == ("BEGIN", "ATOMIC"):
                depth = 1
            previous = word
    return [*statements, text[begin:]]


def end_of_transaction(text: str) -> Literal["commit", "rollback"] | None:
    """Return how the text ends the transaction in which it runs, or None if it does not."""
    if not may_control_transaction(text):
        return None
    for each in split(text):
        statement = _without_comments(each).strip()
        if _COMMIT.fullmatch(statement):
            return "commit"
        if _ROLLBACK.fullmatch(statement):
            return "rollback"
    return None


def _without_comments(statement: str) -> str:
    kept, begin = [], 0
    for part, start, end in _parts(statement):
        if part.startswith(_COMMENTS):
            kept.append(statement[begin:start])
            begin = end
    return " ".join([*kept, statement[begin:]])


def _parts(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield what a comment, a quoted text or a word begins with, or a semicolon, and where each begins and ends."""
    end = 0
    while found := _PART.search(text, end):
        part, start, end = found[0], found.start(), found.end()
        if part == "/*":
            end = _end_of_comment(text, end)
        elif part in {"e'", "E'"}:
            rest = _REST_WITH_ESCAPES.match(text, end)
            end = rest.end() if rest else len(text)
        elif part[0] in "'\"$":
            closes = text.find(part, end)
            end = len(text) if closes < 0 else closes + len(part)
        yield part, start, end


def _end_of_comment(text: str, begin: int) -> int:
    depth = 1
    for found in _IN_COMMENT.finditer(text, begin):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(text)
