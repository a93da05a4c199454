"""Values of a table's columns: from its constraints, its name and the revisions' code.

The server decides which values are valid for a type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from migrate_review.rows import meaning, values
from migrate_review.rows.trying import tried

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg2.extensions import cursor

    from migrate_review.rows.meaning import Meaning
    from migrate_review.rows.shape import ColumnShape, TableShape
    from migrate_review.rows.values import Type

# Maximum number of values that a column takes from the texts of revisions.
_MOST_SOUGHT = 24
_HAS_INPUT_CHECK = 160000


@dataclass(frozen=True)
class RevisionTexts:
    """The string constants of revisions. The columns that they mention get their values.

    ``inserted`` are values that revisions insert, each with its table. No test row may contain them.
    """

    texts: tuple[str, ...] = ()
    inserted: frozenset[tuple[str, str]] = frozenset()


NO_TEXTS = RevisionTexts()


@dataclass
class ColumnValues:
    """Values for the columns of a database.

    ``tame`` leaves out values at the edge of their types, ``sparse`` all values of columns that may be NULL.
    """

    cursor: cursor
    types: Mapping[int, Type]
    texts: RevisionTexts
    tame: bool
    sparse: bool = False
    _pools: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _meanings: dict[tuple[str, str], Meaning | None] = field(default_factory=dict)
    _sought: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _known: dict[tuple[str, tuple[str, ...]], list[str]] = field(default_factory=dict)

    def pool(self, table: TableShape, column: ColumnShape) -> list[str]:
        """Return valid values of a column, those in the table's constraints first."""
        key = (table.name, column.name)
        if key not in self._pools:
            found = self._usual(table, column)
            constrained = [
                value
                for expression in (*table.checks, *table.bounds, *self._of_domain(column.type))
                if re.search(rf"\b(VALUE|{re.escape(column.name)})\b", expression)
                for value in values.mined(expression, column.type, self.types)
            ]
            if constrained:
                # The constraint has priority over the column's name.
                found = [*found, *values.pool(column.type, self.types, meaning.salt_of(*key))]
            if self.tame:
                found = values.tamed(found)
            found = list(dict.fromkeys([*constrained, *found]))
            self._pools[key] = self._valid(column.type, found)
        return self._pools[key]

    def _usual(self, table: TableShape, column: ColumnShape) -> list[str]:
        """Return values of the column's type that match the column's meaning."""
        kind = column.type
        while kind.kind == "d":
            kind = self.types[kind.base]
        if kind.name in {"json", "jsonb"}:
            return meaning.documents(column.name, column.default, self._code(table, column), tame=self.tame)
        meant = self._meaning(table, column)
        if meant is not None and meant.some:
            return list(meant.some)
        return [
            *(meaning.of_integer(column.name) if kind.name in {"int2", "int4", "int8"} else ()),
        ] or values.pool(column.type, self.types, meaning.salt_of(table.name, column.name))

    def _meaning(self, table: TableShape, column: ColumnShape) -> Meaning | None:
        """Return the meaning of a text column, or None if the column has another type or its meaning is unknown."""
        key = (table.name, column.name)
        if key not in self._meanings:
            is_text = values.is_text(column.type, self.types)
            code = self._code(table, column)
            self._meanings[key] = meaning.of_text(column.name, code, tame=self.tame) if is_text else None
        return self._meanings[key]

    def _code(self, table: TableShape, column: ColumnShape) -> list[str]:
        """Return the texts of the revisions that name the table and the column."""
        bare = table.name.rpartition(".")[2].strip('"')
        return [text for text in self.texts.texts if mentions(text, column.name) and mentions(text, bare)]

    def distinct(self, table: TableShape, column: ColumnShape, number: int, *, by_meaning: bool) -> str | None:
        """Return the ``number``-th of many different values of a column, or None if its type has few values."""
        salt = meaning.salt_of(table.name, column.name)
        meant = self._meaning(table, column) if by_meaning else None
        if meant is not None and meant.nth is not None:
            text = meant.nth(number, salt)
            most = values.length_of(column.type)
            if most is None or len(text) <= most:
                return text
        found = values.distinct(column.type, self.types, number, salt)
        return found.lower() if found is not None and self.tame and values.is_text(column.type, self.types) else found

    def sought(self, table: TableShape, column: ColumnShape) -> list[str]:
        """Return the values in the texts that mention the column, the latest revision's first."""
        key = (table.name, column.name)
        if key not in self._sought:
            if column.type.name in {"json", "jsonb"}:
                return []  # its documents already have the keys that the code looks for
            meant = self._meaning(table, column)
            if meant is not None and meant.only:
                return []
            bare = table.name.rpartition(".")[2].strip('"')
            found = [
                value
                for text in reversed(self.texts.texts)
                if mentions(text, column.name)
                for value in values.mined(text, column.type, self.types)
                if (bare, value) not in self.texts.inserted
            ]
            if meant is not None and meant.type:
                found = [value for value in found if self._valid_as(meant.type, value)]
            self._sought[key] = self._valid(column.type, list(dict.fromkeys(found))[:_MOST_SOUGHT]) if found else []
        return self._sought[key]

    def _valid_as(self, kind: str, value: str) -> bool:
        """Return whether the server accepts a text as a value of a type."""
        return tried(self.cursor, "SELECT pg_input_is_valid(%s, %s)", (value, kind)).found == ((True,),)

    def of_key(self, table: TableShape, column: ColumnShape, value: str) -> str:
        """Return a value for a unique column. A text without a constraint differs from those of other tables."""
        meant = self._meaning(table, column)
        plain = values.is_text(column.type, self.types) and (meant is None or not meant.type) and not table.checks
        if not plain or table.bounds or column.type.kind == "d":
            return value
        most = values.length_of(column.type)
        other = meaning.salted(value, meaning.salt_of(table.name, column.name))
        return other if most is None or len(other) <= most else value

    def _of_domain(self, kind: Type) -> Iterator[str]:
        while kind.kind == "d":
            yield from kind.checks
            kind = self.types[kind.base]

    def _valid(self, kind: Type, found: Sequence[str]) -> list[str]:
        """Return the values that the server accepts for the type, a domain's checks included."""
        # Before version 16, a query can only check all values together: it fails if one of them is invalid.
        has_check = self.cursor.connection.server_version >= _HAS_INPUT_CHECK
        valid_ = "pg_input_is_valid(value, %s)" if has_check else f"num_nulls(value::{kind.shown}, %s) >= 0"
        query = (
            "SELECT coalesce(array_agg(value ORDER BY place), '{}') FROM unnest(%s::text[])"  # noqa: S608 - a type's name
            f" WITH ORDINALITY AS each (value, place) WHERE {valid_}"
        )
        key = (kind.shown, tuple(found))
        if key in self._known:
            return self._known[key]
        parts, valid = [list(found)], []
        while parts:
            part = parts.pop()
            outcome = tried(self.cursor, query, (part, kind.shown))
            if outcome.problem is None:
                valid += outcome.found[0][0]
            elif len(part) > 1:
                # The input function of some types raises an error in pg_input_is_valid(), too.
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
        self._known[key] = valid
        return valid


def mentions(expressions: str, name: str) -> bool:
    """Return whether a text has a name as a word."""
    return re.search(rf"\b{re.escape(name)}\b", expressions) is not None
