"""Reads the text of SQL: its statements, and what ends with the transaction in which they run."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"]|\"\")*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<end>;)",
    re.DOTALL,
)
# The body of a function in standard SQL ends with END.
SQL_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)

_END = r"(?:\s+(?:WORK|TRANSACTION))?(?:\s+AND\s+(?:NO\s+)?CHAIN)?"
_COMMIT = re.compile(rf"(?:COMMIT|END){_END}", re.IGNORECASE)
_ROLLBACK = re.compile(rf"(?:ROLLBACK|ABORT){_END}|PREPARE\s+TRANSACTION\b.*", re.IGNORECASE | re.DOTALL)
# It may commit in its middle, if it runs outside of a transaction.
_MAY_COMMIT = re.compile(r"(?:CALL|DO)\b", re.IGNORECASE)
# A definition does nothing itself: the body of a function or a procedure runs when it is called.
_DEFINES = re.compile(r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\b|COMMENT\s+ON\b", re.IGNORECASE)
# Settings that do not change what a later revision leaves behind.
_LIMITS = r"(?:\w*timeout|\w*work_mem|client_min_messages|log_\w+|max_parallel_\w+|synchronous_commit)"
# "SET LOCAL" and the like may be in the body of a DO block, too. A third argument of set_config() that is a parameter
# may be true.
_LOCAL = re.compile(
    rf"\bSET\s+LOCAL\s+(?!{_LIMITS}\b)"
    r"|\bSET\s+(?:CONSTRAINTS|TRANSACTION)\b"
    rf"|\bset_config\b\"?\s*\((?!\s*'{_LIMITS}')(?![^()]*,\s*(?:false|'f(?:alse)?')(?:\s*::\s*bool(?:ean)?)?\s*\))"
    r"|\bpg_(?:try_)?advisory_xact_lock"
    r"|\A\s*LOCK\b|\bLOCK\s+TABLE\b"
    r"|\bON\s+COMMIT\s+(?:DROP|DELETE)\b"
    r"|\bDECLARE\b[^;]*?\bCURSOR\b(?!\s+WITH\s+HOLD\b)"
    # SQLAlchemy releases its own savepoints.
    r"|\A\s*SAVEPOINT\s+(?!sa_savepoint_)",
    re.IGNORECASE,
)
_ACTS = re.compile(r"\s*(?:SELECT|WITH|VALUES|CALL|DO|EXECUTE)\b", re.IGNORECASE)
_CALLED = re.compile(r"(\w+)\"?\s*\(")


def split(text: str) -> list[str]:
    """Return the statements of a text."""
    ends = [found.start() for found in _TOKEN.finditer(text) if found["end"]]
    return [text[start:end] for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)]


def rolls_back(text: str) -> bool:
    """Return whether a statement of the text ends the transaction without a commit: ROLLBACK, PREPARE TRANSACTION."""
    return any(_ROLLBACK.fullmatch(each) for each in _plain(text))


def commits(text: str) -> bool:
    """Return whether a statement of the text commits the transaction."""
    return any(_COMMIT.fullmatch(each) for each in _plain(text))


def may_commit_in_between(text: str) -> bool:
    """Return whether a statement of the text may commit before it ends, or fails."""
    return any(_MAY_COMMIT.match(each) for each in _plain(text))


def is_local(text: str) -> bool:
    """Return whether a statement of the text has an effect that ends with its transaction, as SET LOCAL has."""
    return any(_LOCAL.search(each) and not _DEFINES.match(each) for each in _plain(text))


def called(text: str) -> set[str]:
    """Return the names of the functions and procedures that the text may call for their effect."""
    return {name for each in _plain(text) if _ACTS.match(each) for name in _CALLED.findall(each)}


def _plain(text: str) -> list[str]:
    """Return the statements of a text without comments."""
    if SQL_BODY.search(text):
        return [text.strip()]
    return [_TOKEN.sub(lambda found: " " if found["comment"] else found[0], each).strip() for each in split(text)]
