"""Makes candidates for the rows of a table, and the statement that inserts those that its constraints allow."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier
from migrate_review.rows.columns import mentions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from migrate_review.rows.columns import ColumnValues
    from migrate_review.rows.shape import ColumnShape, Reference, TableShape

# Maximum number of attempts for a table. Each has more candidates, and candidates of another kind.
ROUNDS = 6

# In every third row, a column gets a value from the texts of revisions.
_SOUGHT_EVERY = 3


class Candidates:
    """Candidates for a table's rows, and the statement that inserts those that satisfy its constraints."""

    def __init__(
        self,
        values: ColumnValues,
        table: TableShape,
        parents: Mapping[Reference, Sequence[tuple[str, ...]]],
        open_ends: Sequence[Reference],
        attempt: int,
        start: int,
    ) -> None:
        self.table = table
        self.attempt = attempt
        self._values = values
        self._parents = parents
        self._start = start
        self._random = random.Random(f"{table.name} {attempt}")  # noqa: S311 - the same in every run is the point
        self._keys = {column for unique in table.unique for column in unique}
        waiting = [reference for reference in open_ends if reference not in parents]
        strict = [reference for reference in waiting if is_strict(table, reference)]
        # A row that must refer to its own table refers to itself, so its key must be known.
        self._to_itself = [reference for reference in strict if reference.table == table.oid]
        self._placeholders = _columns_of(reference for reference in strict if reference.table != table.oid)
        optional = _columns_of(reference for reference in waiting if reference not in strict)
        self._left_open = {column for column in optional if not table.column(column).not_null}
        given = {column for reference in self._to_itself for column in reference.target}
        given |= _columns_of(parents) | self._placeholders
        expressions = " ".join((*table.checks, *table.bounds))
        self.columns = [
            column
            for column in table.columns
            if column.generated is None
            and (not column.counts or column.name in given or mentions(expressions, column.name))
        ]
        self._triggers_off = bool(self._placeholders) or attempt == ROUNDS - 1

    def rows(self, first: int, end: int) -> list[tuple[str | None, ...]]:
        """Return the candidates of these numbers."""
        return [self._row(number) for number in range(first, end)]

    def _row(self, number: int) -> tuple[str | None, ...]:
        row: dict[str, str | None] = {}
        for reference, parents in self._parents.items():
            row = self._with_reference(row, reference, parents, number)
        for column in self.columns:
            if column.name not in row:
                row[column.name] = self._value(column, number)
        for reference in self._to_itself:
            row.update((here, row[there]) for here, there in zip(reference.columns, reference.target, strict=True))
        return tuple(row.get(column.name) for column in self.columns)

    def _with_reference(
        self,
        row: dict[str, str | None],
        reference: Reference,
        parents: Sequence[tuple[str, ...]],
        number: int,
    ) -> dict[str, str | None]:
        """Return the row with the key of a parent, or NULL, in the reference's columns that have no value yet."""
        # One function: all branches draw from one random sequence, and the order of the draws decides the rows.
        chosen = self._random
        columns = reference.columns
        # A foreign key that shares columns with an earlier one needs a parent with the same values there.
        fitting = [
            parent
            for parent in (parents if any(column in row for column in columns) else ())
            if all(row.get(column, value) == value for column, value in zip(columns, parent, strict=True))
        ] or parents
        if not fitting or (not is_strict(self.table, reference) and chosen.random() < self._null_share()):
            return {**{column: None for column in columns if not self.table.column(column).not_null}, **row}
        if not set(columns) & self._keys:
            return {**dict(zip(columns, chosen.choice(fitting), strict=True)), **row}
        row = {**dict(zip(columns, fitting[(self._start + number) % len(fitting)], strict=True)), **row}
        alone = any(unique <= set(columns) for unique in self.table.unique)
        if not alone and chosen.random() < 0.5:  # noqa: PLR2004 - unique pairs need some out of order
            row.update(zip(columns, chosen.choice(fitting), strict=True))
        return row

    def _null_share(self) -> float:
        return 1.0 if self._values.sparse else (0.12, 0.5, 0.0, 0.3, 0.7, 0.12)[self.attempt]

    def _value(self, column: ColumnShape, number: int) -> str | None:
        # One function, like `_with_reference`: the order of the draws decides the values.
        if column.name in self._left_open or (self._values.sparse and not column.not_null):
            return None
        key = column.name in self._keys or column.counts
        if not column.not_null and self._random.random() < self._null_share() / (3 if key else 1):
            return None
        pool = self._values.pool(self.table, column)
        if (
            column.counts
            or column.name in self._placeholders
            or (key and self._random.random() < self._distinct_share())
        ):
            # A column's constraints may not allow values of its meaning.
            usual = self.attempt not in {3, 5}
            found = self._values.distinct(self.table, column, self._start + number, by_meaning=usual)
            if found is not None:
                return found
        sought = self._values.sought(self.table, column)
        if sought and not key and number % _SOUGHT_EVERY == 0:
            return sought[number // _SOUGHT_EVERY % len(sought)]
        if not pool:
            return None
        # Values from constraints come first.
        few = pool[:12] if self.attempt in {2, 4} else pool
        chosen = self._random.choice(few)
        return self._values.of_key(self.table, column, chosen) if key else chosen

    def _distinct_share(self) -> float:
        return (0.9, 0.9, 0.3, 0.9, 0.5, 0.9)[self.attempt]

    def arguments(self, rows: Sequence[tuple[str | None, ...]]) -> list[list[str | None]]:
        """Return the arguments of the statement for these rows."""
        return [list(column) for column in zip(*rows, strict=True)]

    def statement(self, limit: int) -> str:
        """Return the INSERT of the candidates that no constraint refuses. It takes a list of texts for each column."""
        names = [identifier(column.name) for column in self.columns]
        arrays = ", ".join(["%s::text[]"] * len(names))
        cast = ", ".join(
            f"each.c{at}::{column.type.shown} AS {name}"
            for at, (column, name) in enumerate(zip(self.columns, names, strict=True))
        )
        made = "".join(
            f", LATERAL (SELECT {column.generated} AS {identifier(column.name)}) AS made_{at}"
            for at, column in enumerate(self.table.columns)
            if column.generated is not None
        )
        conditions = [f"(({check}) IS NOT FALSE)" for check in self.table.checks]
        conditions += [f"{identifier(column.name)} IS NOT NULL" for column in self.columns if column.not_null]
        if self.table.bounds:
            conditions.append(f"({' OR '.join(f'({bound})' for bound in self.table.bounds)})")
        columns = ", ".join(names)
        texts = ", ".join(f"c{at}" for at in range(len(names)))
        # The alias is the table's own name, because expressions may qualify columns with it.
        alias = self.table.name.rpartition(".")[2]
        head = f"INSERT INTO {self.table.name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM (SELECT {cast}"  # noqa: S608 - quoted
        tail = (
            f"WITH ORDINALITY AS each ({texts}, place) ORDER BY place) AS {alias}{made}"
            f" WHERE {' AND '.join(conditions) or 'true'} LIMIT {limit}"
            f"{'' if self.table.deferrable else ' ON CONFLICT DO NOTHING'}"
        )
        role = "replica" if self._triggers_off else "origin"
        # psycopg2 would take a percent sign in an expression for a parameter.
        head, tail = head.replace("%", "%%"), tail.replace("%", "%%")
        return f"SET LOCAL session_replication_role = {role}; {head} FROM unnest({arrays}) {tail}"


def is_strict(table: TableShape, reference: Reference) -> bool:
    """Return whether every row must refer to another row, because none of the columns may be NULL."""
    return all(table.column(column).not_null for column in reference.columns)


def _columns_of(references: Iterable[Reference]) -> set[str]:
    return {column for reference in references for column in reference.columns}
