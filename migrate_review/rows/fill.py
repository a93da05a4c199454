"""Fills every table with rows that its constraints allow. The rows are the same in every run.

Candidates are texts. One statement for each table casts them on the server, drops those that a CHECK or a partition
would refuse, and skips duplicates. Therefore this module does not need to interpret constraints. The values of an
expression (an IN list, bounds, patterns) are among the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier
from migrate_review.rows.candidates import ROUNDS, Candidates, is_strict
from migrate_review.rows.columns import NO_TEXTS, ColumnValues
from migrate_review.rows.shape import read_shape
from migrate_review.rows.trying import tried

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg2.extensions import connection, cursor

    from migrate_review.rows.columns import RevisionTexts
    from migrate_review.rows.plan import Plan
    from migrate_review.rows.shape import ColumnShape, Reference, TableShape

_MOST_CANDIDATES = 6000
_MOST_PARENTS = 1000
_CHUNK = 500
# A table keeps this number of rows if larger numbers have failed.
_FEW_ROWS = 3
# Maximum number of statements for one table in an attempt.
_MOST_PIECES = 200


def fill(  # noqa: PLR0913 - how to fill
    opened: connection,
    wanted: int,
    version_table: tuple[str | None, str],
    plan: Plan | None = None,
    texts: RevisionTexts = NO_TEXTS,
    only: frozenset[int] | None = None,
    *,
    sparse: bool = False,
) -> dict[str, str]:
    """Fill every table up to ``wanted`` rows. With ``only``, fill these tables and those to which they refer.

    With ``sparse``, every column that may be NULL is NULL.

    Returns:
        The tables that stayed empty, each with the reason.
    """
    with opened.cursor() as cursor:
        cursor.execute("SET search_path = public; BEGIN")
        try:
            put_on = _put_on(cursor, plan) if plan else ()
            types, tables = read_shape(cursor, version_table)
            if only is not None:
                wanted_tables = _with_references(only, tables)
                tables = [table for table in tables if table.oid in wanted_tables]
            values = ColumnValues(cursor, types, texts, tame=plan is not None, sparse=sparse)
            seeding = _Seeding(cursor, wanted, {table.oid: table for table in tables}, values)
            reasons = seeding.fill()
            _take_off(cursor, put_on)
            _refresh(cursor)
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
    return reasons


def _with_references(only: frozenset[int], tables: Sequence[TableShape]) -> set[int]:
    """Return these tables and those to which they refer, directly or through others."""
    by_oid = {table.oid: table for table in tables}
    found: set[int] = set()
    left = [oid for oid in only if oid in by_oid]
    while left:
        oid = left.pop()
        if oid not in found:
            found.add(oid)
            left.extend(reference.table for reference in by_oid[oid].references)
    return found


def _put_on(cursor: cursor, plan: Plan) -> tuple[str, ...]:
    """Add the plan's constraints that the existing rows satisfy. Return the statements that drop them."""
    done = []
    for put, take in zip(plan.put_on, plan.take_off, strict=True):
        if tried(cursor, put).problem is None:
            done.append(take)
    return tuple(done)


def _refresh(cursor: cursor) -> None:
    """Fill the materialized views from the tables."""
    cursor.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'm' AND relispopulated AND oid >= 16384 ORDER BY oid"
    )
    for (name,) in cursor.fetchall():
        tried(cursor, f"REFRESH MATERIALIZED VIEW {name}")


def _take_off(cursor: cursor, statements: Sequence[str]) -> None:
    """Drop the constraints again. A partitioned table's constraint may have replaced those of its partitions."""
    left = list(statements)
    while left:
        refused = [statement for statement in left if tried(cursor, statement).problem is not None]
        if len(refused) == len(left):
            break  # they were dropped together with the partitioned table's constraint
        left = refused


@dataclass
class _Seeding:
    """One filling of a database, within a transaction."""

    cursor: cursor
    wanted: int
    tables: Mapping[int, TableShape]
    values: ColumnValues
    reasons: dict[str, str] = field(default_factory=dict)

    def fill(self) -> dict[str, str]:
        names = {oid: table.name for oid, table in self.tables.items()}
        before = _counts(self.cursor, names)
        later: list[tuple[TableShape, Reference]] = []
        filled: set[int] = set()
        for oid in self._order():
            table = self.tables[oid]
            open_ends = [
                reference for reference in table.references if reference.table == oid or reference.table not in filled
            ]
            if before[oid] < self.wanted:
                self._fill(table, before[oid], open_ends)
                if not before[oid]:
                    later.extend((table, reference) for reference in open_ends)
            if before[oid]:
                self._give_values(table)
            filled.add(oid)
        if all(count >= self.wanted for count in before.values()):
            return {}
        for table, reference in later:
            self._close(table, reference)
        after = _counts(self.cursor, names)
        for oid, name in names.items():
            if after[oid]:
                self.reasons.pop(name, None)
            else:
                self.reasons.setdefault(name, "no row satisfied its constraints")
            if after[oid] > before[oid]:
                self._advance_sequences(self.tables[oid])
        return self.reasons if self.wanted else {}

    def _order(self) -> list[int]:
        """Return the tables, each after those to which it refers. A circle begins where a foreign key may be NULL."""
        left = dict(self.tables)
        ordered: list[int] = []
        while left:
            free = [oid for oid, table in left.items() if not _needed(table, left)]
            if not free:
                # A circle: begin with a table whose foreign key may be NULL until `_close` sets it.
                free = [oid for oid, table in left.items() if not _needed(table, left, nullable=False)][:1]
            ordered += free or [next(iter(left))]
            for oid in ordered:
                left.pop(oid, None)
        return ordered

    # --- one table ---

    def _fill(self, table: TableShape, there: int, open_ends: Sequence[Reference]) -> None:
        if not table.stores_rows:
            self.reasons[table.name] = "it has no partitions"
            return
        parents = {}
        for reference in table.references:
            if reference in open_ends and not (reference.table == table.oid and there):
                continue
            parents[reference] = self._parents(reference)
            if not parents[reference] and is_strict(table, reference):
                self.reasons[table.name] = f"it refers to {self.tables[reference.table].name}, which has no rows"
                return
        count, reason = there, None
        for attempt in range(ROUNDS):
            need = self.wanted - count
            made = Candidates(self.values, table, parents, open_ends, attempt, there + attempt * _MOST_CANDIDATES)
            done, problem = self._insert(made, need)
            count += done
            reason = problem or reason
            if count >= self.wanted or not table.columns:
                break
        if not count and reason is not None:
            self.reasons[table.name] = reason

    def _parents(self, reference: Reference) -> list[tuple[str, ...]]:
        columns = ", ".join(f"{identifier(column)}::text" for column in reference.target)
        some = " AND ".join(f"{identifier(column)} IS NOT NULL" for column in reference.target)
        self.cursor.execute(
            f"SELECT {columns} FROM {self.tables[reference.table].name} WHERE {some}"  # noqa: S608 - quoted names
            f" ORDER BY {columns} LIMIT {_MOST_PARENTS}"
        )
        return self.cursor.fetchall()

    def _insert(self, made: Candidates, need: int) -> tuple[int, str | None]:
        """Insert candidates until there are enough. If the server refuses a part, insert its halves."""
        if not made.columns:
            self.cursor.execute(f"INSERT INTO {made.table.name} SELECT FROM generate_series(1, {need})")
            return need, None
        candidates = min(_MOST_CANDIDATES, (need + 10) * 3 ** min(made.attempt + 1, 3) // 2)
        first, parts = 0, list[list[tuple[str | None, ...]]]()
        done, pieces, reason = 0, 0, None
        while (parts or first < candidates) and done < need and pieces < _MOST_PIECES:
            if not parts:
                # In chunks, because making unnecessary candidates costs more than inserting them.
                parts.append(made.rows(first, min(first + _CHUNK, candidates)))
                first += _CHUNK
            part = parts.pop()
            pieces += 1
            outcome = tried(self.cursor, made.statement(need - done), made.arguments(part))
            done += outcome.changed
            if outcome.problem is not None:
                reason = outcome.problem
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        return done, reason

    # --- after all tables have rows ---

    def _close(self, table: TableShape, reference: Reference) -> None:
        """Set a foreign key to rows that were inserted after its own. If it may be NULL, some rows keep NULL."""
        own = ", ".join(identifier(column) for column in reference.columns)
        target = ", ".join(identifier(column) for column in reference.target)
        itself = reference.table == table.oid
        strict = is_strict(table, reference)
        # The rows of a table that refers to itself form a tree: each row refers to an earlier one.
        which = "row.n / 2" if itself else "row.n * 7 % parent.total + 1"
        if any(unique <= set(reference.columns) for unique in table.unique):
            which = "row.n - 1" if itself else "row.n"
        some = "true" if strict else "row.n % 5 > 0"
        parents = ", ".join(f"parent.{identifier(each)}" for each in reference.target)
        update = f"""
            UPDATE {table.name} SET ({own}) = ROW({parents})
            FROM (SELECT ctid AS place, row_number() OVER (ORDER BY ctid) AS n FROM {table.name}) AS row
            JOIN (SELECT {target}, row_number() OVER (ORDER BY {target}) AS n, count(*) OVER () AS total
                  FROM {self.tables[reference.table].name}) AS parent ON parent.n = {which}
            WHERE {table.name}.ctid = row.place AND {some}
        """  # noqa: S608 - quoted names
        problem = tried(self.cursor, update).problem
        if strict and not itself:
            # Rows were inserted without regard to this key.
            own_row = " AND ".join(
                f"parent.{identifier(there)} = {table.name}.{identifier(here)}"
                for here, there in zip(reference.columns, reference.target, strict=True)
            )
            parent = self.tables[reference.table].name
            self.cursor.execute(
                f"DELETE FROM {table.name} WHERE NOT EXISTS (SELECT FROM {parent} AS parent WHERE {own_row})"  # noqa: S608
            )
            if problem is not None:
                self.reasons[table.name] = problem

    def _give_values(self, table: TableShape) -> None:
        """Set the columns that are NULL in all rows, because a revision added them after the rows were inserted."""
        columns = [column for column in table.columns if column.generated is None and not column.not_null]
        if self.values.sparse or self.wanted < _FEW_ROWS or not columns:
            return
        some = ", ".join(f"count({identifier(column.name)}) > 0" for column in columns)
        self.cursor.execute(f"SELECT count(*), {some} FROM {table.name}")  # noqa: S608 - quoted names
        [(count, *have)] = self.cursor.fetchall()
        for column in (column for column, has in zip(columns, have, strict=True) if not has):
            reference = next((each for each in table.references if column.name in each.columns), None)
            if reference is not None:
                self._close(table, reference)
                continue
            found = self._values_for(table, column, count)
            # A check on several columns may refuse some values.
            for some_of_them in (found, *([value] for value in found[:_FEW_ROWS])):
                update = f"""
                    SET LOCAL session_replication_role = replica;
                    UPDATE {table.name} SET {identifier(column.name)} = (%s::text[])[row.n]::{column.type.shown}
                    FROM (SELECT tableoid AS part, ctid AS place, row_number() OVER () %% %s + 1 AS n
                          FROM {table.name}) AS row
                    WHERE {table.name}.tableoid = row.part AND {table.name}.ctid = row.place
                """  # noqa: S608 - quoted names
                if tried(self.cursor, update, (some_of_them, len(some_of_them))).problem is None:
                    break
        self.cursor.execute("SET LOCAL session_replication_role = origin")

    def _values_for(self, table: TableShape, column: ColumnShape, count: int) -> list[str | None]:
        """Return the values of a column for ``count`` rows, some of them NULL."""
        if any(column.name in unique for unique in table.unique):
            several = (self.values.distinct(table, column, number, by_meaning=True) for number in range(count))
            return [value for value in several if value is not None]
        found = dict.fromkeys((*self.values.sought(table, column), *self.values.pool(table, column)))
        return [*found, None]

    def _advance_sequences(self, table: TableShape) -> None:
        """Advance the sequences of a table's columns past the inserted values."""
        for column in table.columns:
            if column.counts:
                name = identifier(column.name)
                tried(
                    self.cursor,
                    f"SELECT setval(sequence, greatest((SELECT max({name}) FROM {table.name}), 1))"  # noqa: S608
                    " FROM pg_get_serial_sequence(%s, %s) AS sequence WHERE sequence IS NOT NULL",
                    (table.name, column.name),
                )


def _needed(table: TableShape, left: Mapping[int, TableShape], *, nullable: bool = True) -> bool:
    """Return whether a table refers to another one of these, with ``nullable`` also by keys that may be NULL."""
    return any(
        reference.table != table.oid and reference.table in left and (nullable or is_strict(table, reference))
        for reference in table.references
    )


def _counts(cursor: cursor, names: Mapping[int, str]) -> dict[int, int]:
    if not names:
        return {}
    each = " UNION ALL ".join(f"SELECT {oid}, count(*) FROM {name}" for oid, name in names.items())  # noqa: S608
    cursor.execute(each)
    return dict(cursor.fetchall())
