"""Writes the queries that find rows which a revision's constraints refuse, for the schema before the revision.

Each query returns the rows, or the values, that are in the way. It is None where the schema before the revision cannot
tell: the constraint is about a column that the revision makes, or says more than can be asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate_review.rules import difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Catalog, Column, Constraint, Index, Observation, Table

_KINDS = {"p": "unique", "u": "unique", "f": "foreign_key", "c": "check", "x": "exclusion"}
_NULL_IN_NEW_COLUMN = "23502"

_CHECK = re.compile(r"CHECK (?P<condition>\(.*\))(?: NO INHERIT)?", re.DOTALL)
_REFERENCES = re.compile(r"REFERENCES (?P<table>(?:\"(?:[^\"]|\"\")+\"|[\w.$])+)\((?P<columns>[^)]*)\)")
_EXCLUDE = re.compile(r"EXCLUDE USING \w+ (?=\()")
_ELEMENT = re.compile(r"(?P<column>\"(?:[^\"]|\"\")+\"|\w+)(?: \w+)? WITH (?P<operator>\S+)")
_INDEX = re.compile(r" USING \w+ (?=\()")
_AFTER_KEY = re.compile(r"(?: COLLATE \S+| [\w.]+_ops(?:\([^)]*\))?| ASC| DESC| NULLS (?:FIRST|LAST))+$")

# A type that holds less than before: the text in it may be longer, or the number larger.
_LENGTH = re.compile(r"character(?: varying)?\((?P<length>\d+)\)")
_NUMERIC = re.compile(r"numeric\((?P<precision>\d+),(?P<scale>\d+)\)")
_RANGES = {"smallint": (-(2**15), 2**15 - 1), "integer": (-(2**31), 2**31 - 1)}
_NUMBERS = re.compile(r"smallint|integer|bigint|numeric.*|real|double precision")
_TEXTS = re.compile(r"text|character.*")


@dataclass(frozen=True)
class Check:
    """What a revision requires of the rows of a table. ``kind`` is as docs/contract.md names it in ``plan``."""

    kind: str
    table: str
    columns: tuple[str, ...]
    name: str | None
    query: str | None


def checks(observation: Observation) -> Iterator[Check]:
    """Yield what the upgrade requires of the rows that were there before it."""
    before, after = observation.before, observation.after
    if after is None:
        return
    for was, now in difference.kept_tables(before, after):
        names = _Names(was, now, before, _inherited(after, now))
        yield from _of_constraints(names)
        yield from _of_indexes(names)
        yield from _of_columns(names, observation)


@dataclass(frozen=True)
class _Names:
    """A table before and after, and what its columns were called.

    ``inherited`` are the definitions of constraints and indexes of the table that it is a partition of.
    """

    was: Table
    now: Table
    before: Catalog
    inherited: frozenset[str]

    @property
    def columns(self) -> Mapping[str, Column]:
        """The columns that were there, by the name that they have afterwards."""
        return {new.name: old for old, new in difference.kept_columns(self.was, self.now)}

    def before_of(self, columns: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the columns' names before the revision, None if one was not there."""
        known = self.columns
        return tuple(known[each].name for each in columns) if all(each in known for each in columns) else None

    def same_in(self, text: str) -> bool:
        """Whether SQL of afterwards means the same before: it names no column that is new or renamed."""
        known = self.columns
        changed = [
            each.name for each in self.now.columns if each.name not in known or known[each.name].name != each.name
        ]
        return not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in changed)


def _inherited(after: Catalog, table: Table) -> frozenset[str]:
    owner = after.table_named(difference.parents(after).get(table.name, ""))
    if owner is None:
        return frozenset()
    return frozenset({*(each.definition for each in owner.constraints), *(_keys_of(each) for each in owner.indexes)})


def _keys_of(index: Index) -> str:
    return index.definition.partition(" USING ")[2]


def _of_constraints(names: _Names) -> Iterator[Check]:
    held = {each.name: each.validated for each in names.was.constraints}
    for constraint in names.now.constraints:
        if constraint.kind not in _KINDS or not constraint.validated or held.get(constraint.name):
            continue
        if constraint.definition in names.inherited:
            continue  # the rows of a partition are looked at with those of its table
        columns = names.before_of(constraint.columns)
        query = _query(names, constraint, columns) if columns is not None else None
        yield Check(_KINDS[constraint.kind], names.was.name, columns or constraint.columns, constraint.name, query)


def _query(names: _Names, constraint: Constraint, columns: tuple[str, ...]) -> str | None:
    table = names.was.name
    if constraint.kind in "pu":
        return _duplicates(table, columns, equal_nulls="NULLS NOT DISTINCT" in constraint.definition)
    if constraint.kind == "f":
        return _orphans(names, constraint, columns)
    if not names.same_in(constraint.definition):
        return None
    if constraint.kind == "c":
        found = _CHECK.match(constraint.definition)
        return f"SELECT * FROM {table} WHERE NOT {found['condition']}" if found else None  # noqa: S608
    return _overlaps(table, constraint.definition)


def _duplicates(table: str, columns: tuple[str, ...], *, equal_nulls: bool = False) -> str:
    listed = ", ".join(quoted(each) for each in columns)
    where = "" if equal_nulls else " WHERE " + " AND ".join(f"{quoted(each)} IS NOT NULL" for each in columns)
    return f"SELECT {listed}, count(*) FROM {table}{where} GROUP BY {listed} HAVING count(*) > 1"  # noqa: S608


def _orphans(names: _Names, constraint: Constraint, columns: tuple[str, ...]) -> str | None:
    found = _REFERENCES.search(constraint.definition)
    other = names.before.table_named(constraint.references or "")
    if found is None or other is None:
        return None
    target = [_bare(each.strip()) for each in _split(found["columns"])]
    if not set(target) <= {column.name for column in other.columns}:
        return None
    pairs = zip(target, columns, strict=True)
    equal = " AND ".join(f"there.{quoted(theirs)} = here.{quoted(own)}" for theirs, own in pairs)
    filled = " AND ".join(f"here.{quoted(each)} IS NOT NULL" for each in columns)
    there = f"SELECT FROM {constraint.references} AS there WHERE {equal}"
    return f"SELECT here.* FROM {names.was.name} AS here WHERE {filled} AND NOT EXISTS ({there})"  # noqa: S608


def _overlaps(table: str, definition: str) -> str | None:
    found = _EXCLUDE.match(definition)
    if found is None:
        return None
    inner, rest = _in_parentheses(definition[found.end() :])
    elements = [_ELEMENT.fullmatch(each.strip()) for each in _split(inner)]
    if not all(elements):
        return None
    conflict = " AND ".join(f"a.{each['column']} {each['operator']} b.{each['column']}" for each in elements if each)
    where = f" WHERE ({_in_parentheses(rest[7:])[0]})" if rest.startswith(" WHERE ") else ""
    rows = f"(SELECT tableoid AS part, ctid AS place, * FROM {table}{where})"  # noqa: S608
    return f"SELECT a.* FROM {rows} AS a JOIN {rows} AS b ON (a.part, a.place) < (b.part, b.place) AND {conflict}"  # noqa: S608


def _of_indexes(names: _Names) -> Iterator[Check]:
    held = {each.name for each in names.was.indexes}
    for index in names.now.indexes:
        if _keys_of(index) in names.inherited:
            continue
        if index.unique and index.valid and not index.constraint and index.name not in held:
            yield Check("unique", names.was.name, index.columns, index.name, _duplicate_keys(names, index))


def _duplicate_keys(names: _Names, index: Index) -> str | None:
    start = _INDEX.search(index.definition)
    if start is None or not names.same_in(index.definition):
        return None
    inner, rest = _in_parentheses(index.definition[start.end() :])
    keys = [_AFTER_KEY.sub("", each.strip()) for each in _split(inner)]
    where = rest.partition(" WHERE ")[2]
    conditions = [where] if where else []
    if "NULLS NOT DISTINCT" not in rest:
        conditions += [f"{key} IS NOT NULL" for key in keys]
    filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    listed = ", ".join(keys)
    return f"SELECT {listed}, count(*) FROM {names.was.name}{filtered} GROUP BY {listed} HAVING count(*) > 1"  # noqa: S608


def _of_columns(names: _Names, observation: Observation) -> Iterator[Check]:
    table = names.was.name
    for old, new in difference.kept_columns(names.was, names.now):
        column = quoted(old.name)
        if new.not_null and not old.not_null:
            yield Check("not_null", table, (old.name,), None, f"SELECT * FROM {table} WHERE {column} IS NULL")  # noqa: S608
        if old.type != new.type and (condition := _too_large(column, old.type, new.type)) is not None:
            yield Check("type", table, (old.name,), None, f"SELECT * FROM {table} WHERE {condition}")  # noqa: S608
    refused = observation.refused
    if refused is None or refused.sqlstate != _NULL_IN_NEW_COLUMN:
        return
    known = {column.number for column in names.was.columns}
    for new in names.now.columns:
        if new.number not in known and new.not_null and new.default is None and not (new.generated or new.identity):
            yield Check("not_null", table, (new.name,), None, f"SELECT * FROM {table}")  # noqa: S608


def _too_large(column: str, old: str, new: str) -> str | None:
    """Return the condition of values that an assignment to the new type refuses, None if it is not known."""
    if (length := _LENGTH.fullmatch(new)) and _TEXTS.fullmatch(old):
        return f"char_length(rtrim({column}::text)) > {length['length']}"
    if (number := _NUMERIC.fullmatch(new)) and _NUMBERS.fullmatch(old):
        digits, scale = int(number["precision"]) - int(number["scale"]), number["scale"]
        return f"abs(round({column}::numeric, {scale})) >= 1e{digits}"
    if new in _RANGES and _NUMBERS.fullmatch(old):
        lowest, highest = _RANGES[new]
        return f"round({column}::numeric) NOT BETWEEN {lowest} AND {highest}"
    return None


def _bare(name: str) -> str:
    """Return a column's name as PostgreSQL shows it, without quotes."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _in_parentheses(text: str) -> tuple[str, str]:
    """Return what is inside the parenthesis that the text begins with, and what follows it."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[1:place], text[place + 1 :]
    return text[1:], ""


def _split(text: str) -> list[str]:
    """Return the parts between the commas that are outside parentheses and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += 0 if quote else (character in "([") - (character in ")]")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def quoted(name: str) -> str:
    """Return a column's name for SQL."""
    return '"' + name.replace('"', '""') + '"'
