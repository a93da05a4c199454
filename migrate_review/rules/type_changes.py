"""Finds the values that a column's new type refuses, from the two types and the USING of ALTER COLUMN ... TYPE."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.sql_text import bare, in_parentheses, split, unqualified

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ALTER_TABLE = re.compile(
    r"\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(?P<table>(?:(?:\"(?:[^\"]|\"\")+\"|\w+)\.)?(?:\"(?:[^\"]|\"\")+\"|\w+))",
    re.IGNORECASE,
)
_ALTER_TYPE = re.compile(
    r"\bALTER\s+(?:COLUMN\s+)?(?P<column>\"(?:[^\"]|\"\")+\"|\w+)\s+(?:SET\s+DATA\s+)?TYPE\s", re.IGNORECASE
)
_SET_EXPRESSION = re.compile(r"\bSET\s+EXPRESSION\b", re.IGNORECASE)
_USING = re.compile(r"\bUSING\b", re.IGNORECASE)
_NAME = r"(?:\"(?:[^\"]|\"\")+\"|\w+)"
_TYPE = rf"{_NAME}(?:\.{_NAME})?(?: \w+)*(?:\([\d, ]+\))?(?: with(?:out)? time zone)?(?:\[\])?"
_CASTS = re.compile(rf"(?P<column>{_NAME})(?: ?:: ?{_TYPE})*", re.IGNORECASE)
_CAST = re.compile(rf"CAST ?\( ?(?P<column>{_NAME}) AS {_TYPE} ?\)", re.IGNORECASE)
_AT_TIME_ZONE = re.compile(rf"(?P<column>{_NAME}) AT TIME ZONE '[^']+'", re.IGNORECASE)

# Types with a limit that the old values may exceed: a text's length, or a number's size.
_LENGTH = re.compile(r"character(?: varying)?\((?P<length>\d+)\)")
_NUMERIC = re.compile(r"numeric\((?P<precision>\d+),(?P<scale>\d+)\)")
_RANGES = {"smallint": (-(2**15), 2**15 - 1), "integer": (-(2**31), 2**31 - 1), "bigint": (-(2**63), 2**63 - 1)}
_NUMBERS = re.compile(r"smallint|integer|bigint|numeric.*|real|double precision")
_TEXTS = re.compile(r"text|character.*|citext")
_LONG = frozenset({"text", "character varying"})
_TIMES = re.compile(r"date|timestamp(?:\(\d\))? with(?:out)? time zone")
_LAST_TIMESTAMP = "294276-12-31"
# The end of an array's type, with any number of dimensions.
ARRAY = "[]"
# In ascending order: each type accepts all values of the earlier ones.
_WIDER = ("smallint", "integer", "bigint", "numeric")


def condition(column: str, old: str, new: str, using: str | None, labels: Sequence[str] | None) -> str | None:
    """Return the condition of values that the new type refuses: "" if it accepts all, None if it is unknown.

    ``using`` is the expression of the conversion, or None for an assignment. ``labels`` are those of the new type if it
    is an enum.
    """
    kind = _kind(using, column)
    if kind == "unknown":
        return None
    if kind == "time zone" or _takes_all(old, new):
        return ""
    if labels is not None:
        listed = ", ".join("'" + label.replace("'", "''") + "'" for label in labels)
        if old.endswith(ARRAY) != new.endswith(ARRAY):
            return None
        if new.endswith(ARRAY):
            return f"EXISTS (SELECT FROM unnest({column}::text[]) AS label WHERE label NOT IN ({listed}))"
        return f"{column}::text NOT IN ({listed})"
    return _too_large(column, old, new, cast=kind == "cast")


def values_of(type_: str, start: int, step: int, least: int, most: int) -> int | None:
    """Return the number of values of a new sequence for a column of this type, or None if no table has so many rows."""
    low, high = _RANGES.get(type_, (least, most))
    last = min(most, high) if step > 0 else max(least, low)
    values = abs(last - start) // abs(step) + 1
    return values if values < _RANGES["integer"][1] else None


def refused_by(value: str, new: str) -> str:
    """Return the condition of computed values that a type refuses, or "" if it accepts all."""
    if _LENGTH.fullmatch(new):
        return _too_large(value, "text", new, cast=False) or ""
    return (_too_large(value, "numeric", new, cast=False) or "") if _NUMERIC.fullmatch(new) or new in _RANGES else ""


def changes_type(sql: str) -> bool:
    """Return whether a statement may change the type of a column, or the expression of a generated one."""
    return _ALTER_TYPE.search(sql) is not None or _SET_EXPRESSION.search(sql) is not None


def keeps_values(column: str, old: str, new: str, using: str | None) -> bool:
    """Return whether a change of the type keeps the equality and the order of all values."""
    if _kind(using, column) not in {"assignment", "cast"}:
        return False
    if old == new or (old in _RANGES and new in {*_RANGES, "numeric"}):
        return True
    lengths = [_LENGTH.fullmatch(each) for each in (old, new)]
    if new.startswith("character(") and not old.startswith("character("):
        return False  # the type ignores trailing spaces
    if lengths[0] and lengths[1]:
        return int(lengths[0]["length"]) <= int(lengths[1]["length"])
    return bool(lengths[0] or old in _LONG) and new in _LONG


def _kind(using: str | None, column: str) -> str:
    if using is None:
        return "assignment"
    text = " ".join(using.split())
    while text.startswith("(") and in_parentheses(text)[1] == "":
        text = in_parentheses(text)[0].strip()
    for pattern, kind in ((_CASTS, "cast"), (_CAST, "cast"), (_AT_TIME_ZONE, "time zone")):
        found = pattern.fullmatch(text)
        if found is not None and bare(found["column"]) == bare(column):
            return kind
    return "unknown"


def _takes_all(old: str, new: str) -> bool:
    if new in {*_LONG, "citext"}:
        return True
    lengths = [_LENGTH.fullmatch(each) for each in (old, new)]
    if lengths[0] and lengths[1]:
        return int(lengths[0]["length"]) <= int(lengths[1]["length"])
    if old in _WIDER and new in _WIDER:
        return _WIDER.index(old) <= _WIDER.index(new)
    if _NUMBERS.fullmatch(old) and new in {"real", "double precision", "numeric"}:
        return new != "real" or old in {"smallint", "integer", "bigint"}
    return bool(_TIMES.fullmatch(old) and _TIMES.fullmatch(new)) and (old != "date" or new == "date")


def _too_large(column: str, old: str, new: str, *, cast: bool) -> str | None:
    if (length := _LENGTH.fullmatch(new)) and (_TEXTS.fullmatch(old) or cast):
        # An explicit cast truncates the text.
        return "" if cast else f"char_length(rtrim({column}::text)) > {length['length']}"
    if (number := _NUMERIC.fullmatch(new)) and _NUMBERS.fullmatch(old):
        digits, scale = int(number["precision"]) - int(number["scale"]), number["scale"]
        # A numeric of any precision accepts NaN.
        return f"abs(round({column}::numeric, {scale})) >= 1e{digits} AND {column}::numeric <> 'NaN'"
    if new in _RANGES and _NUMBERS.fullmatch(old):
        lowest, highest = _RANGES[new]
        return f"round({column}::numeric) NOT BETWEEN {lowest} AND {highest}"
    if old == "date" and _TIMES.fullmatch(new):
        return f"isfinite({column}) AND {column} > '{_LAST_TIMESTAMP}'"
    if _TEXTS.fullmatch(old) or old == "json":
        # PostgreSQL 16 and later have this function. On an older server the query fails.
        return f"NOT pg_input_is_valid({column}::text, '{new.replace(chr(39), chr(39) * 2)}')"
    return None


def using_of(statements: Iterable[str], tables: Iterable[str], columns: Iterable[str]) -> str | None:
    """Return the USING expression with which a column's type is changed, if there is one.

    ``tables`` and ``columns`` are the names of the table and of the column, before and after the revision.
    """
    own, names = {unqualified(each) for each in tables}, set(columns)
    for sql in statements:
        for change in _ALTER_TABLE.finditer(sql):
            if unqualified(change["table"]) not in own:
                continue
            following = _ALTER_TABLE.search(sql, change.end())
            actions = sql[change.end() : following.start() if following else len(sql)]
            for altered in _ALTER_TYPE.finditer(actions):
                action = split(split(actions[altered.end() :])[0], ";")[0]
                if bare(altered["column"]) in names and (using := _USING.search(action)):
                    return action[using.end() :].strip()
    return None
