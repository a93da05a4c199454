"""Fills every table with rows that its constraints allow, the same ones in every run.

Candidates are made here, as text, and sent to the server in one statement for each table, which casts them, leaves out
what a CHECK or a partition would refuse, and skips what is not unique. So constraints need not be understood, only
tried; what an expression speaks of (values of an IN list, bounds, patterns) is among what is tried.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2

from migrate_review.rows import meaning, values
from migrate_review.rows.contents import quoted
from migrate_review.rows.shape import read_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psycopg2.extensions import connection, cursor

    from migrate_review.rows.meaning import Meaning
    from migrate_review.rows.plan import Plan
    from migrate_review.rows.shape import ColumnShape, Reference, TableShape
    from migrate_review.rows.values import Type

# A table is tried this often, each time with more candidates of another kind.
_ROUNDS = 6
_MOST_CANDIDATES = 6000
_MOST_PARENTS = 1000
_CHUNK = 500
# A column takes at most so many values from the texts of revisions, in every third row.
_MOST_SOUGHT = 24
_SOUGHT_EVERY = 3
_HAS_INPUT_CHECK = 160000
# Statements for one table whose rows are refused one by one.
_MOST_PIECES = 200


@dataclass(frozen=True)
class RevisionTexts:
    """The texts in revisions, whose values go into the columns that they mention.

    ``inserted`` are values that revisions insert, each with its table: no row may have them before.
    """

    texts: tuple[str, ...] = ()
    inserted: frozenset[tuple[str, str]] = frozenset()


def fill(
    opened: connection,
    wanted: int,
    version_table: tuple[str | None, str],
    plan: Plan | None = None,
    texts: RevisionTexts = RevisionTexts(),
    only: frozenset[int] | None = None,
) -> dict[str, str]:
    """Top up every table to ``wanted`` rows, or ``only`` these and those that they refer to.

    Returns:
        The tables that have none all the same, with the reason.
    """
    with opened.cursor() as cursor:
        cursor.execute("SET search_path = public; BEGIN")
        try:
            put_on = _put_on(cursor, plan) if plan else ()
            types, tables = read_shape(cursor, version_table)
            if only is not None:
                wanted_tables = _with_references(only, tables)
                tables = [table for table in tables if table.oid in wanted_tables]
            seeding = _Seeding(
                cursor, wanted, types, {table.oid: table for table in tables}, texts, tame=plan is not None
            )
            reasons = seeding.fill()
            _take_off(cursor, put_on)
            _refresh(cursor)
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
    return reasons


def _with_references(only: frozenset[int], tables: Sequence[TableShape]) -> set[int]:
    """Return these tables and those that they refer to, directly or through others."""
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
        if _tried(cursor, put).problem is None:
            done.append(take)
    return tuple(done)


def _refresh(cursor: cursor) -> None:
    """Fill the materialized views from the tables."""
    cursor.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'm' AND relispopulated AND oid >= 16384 ORDER BY oid"
    )
    for (name,) in cursor.fetchall():
        _tried(cursor, f"REFRESH MATERIALIZED VIEW {name}")


def _take_off(cursor: cursor, statements: Sequence[str]) -> None:
    """Drop the constraints again. That of a partitioned table may have taken over those of its partitions."""
    left = list(statements)
    while left:
        refused = [statement for statement in left if _tried(cursor, statement).problem is not None]
        if len(refused) == len(left):
            break  # they went with their table's
        left = refused


@dataclass(frozen=True)
class _Outcome:
    """The number of changed rows and the result of a statement, or the server's message if it was undone."""

    changed: int = 0
    found: tuple[Any, ...] = ()
    problem: str | None = None


def _tried(cursor: cursor, statement: str, arguments: Any = None) -> _Outcome:  # noqa: ANN401
    cursor.execute("SAVEPOINT tried")
    try:
        cursor.execute(statement, arguments)
        outcome = _Outcome(max(0, cursor.rowcount), tuple(cursor.fetchall()) if cursor.description else ())
    except psycopg2.Error as error:
        cursor.execute("ROLLBACK TO tried; RELEASE tried")
        return _Outcome(problem=error.diag.message_primary or str(error).strip())
    cursor.execute("RELEASE tried")
    return outcome


@dataclass
class _Seeding:
    """One filling of a database, within a transaction. ``tame`` leaves out values at the edge of their types."""

    cursor: cursor
    wanted: int
    types: Mapping[int, Type]
    tables: Mapping[int, TableShape]
    texts: RevisionTexts
    tame: bool
    reasons: dict[str, str] = field(default_factory=dict)
    _pools: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _meanings: dict[tuple[str, str], Meaning | None] = field(default_factory=dict)
    _sought: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _known: dict[tuple[str, tuple[str, ...]], list[str]] = field(default_factory=dict)

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
        """Return the tables after those that they refer to. A circle begins where a foreign key may be NULL."""
        left = dict(self.tables)
        ordered: list[int] = []
        while left:
            free = [oid for oid, table in left.items() if not _needed(table, left)]
            if not free:
                # A circle: begin where a foreign key may be NULL for the time being.
                free = [oid for oid, table in left.items() if not _needed(table, left, nullable=False)][:1]
            ordered += free or [next(iter(left))]
            for oid in ordered:
                left.pop(oid, None)
        return ordered

    # --- one table ---

    def _fill(self, table: TableShape, there: int, open_ends: Sequence[Reference]) -> None:
        parents = {}
        for reference in table.references:
            if reference in open_ends and not (reference.table == table.oid and there):
                continue
            parents[reference] = self._parents(reference)
            if not parents[reference] and _strict(table, reference):
                self.reasons[table.name] = f"it refers to {self.tables[reference.table].name}, which has no rows"
                return
        count, reason = there, None
        for attempt in range(_ROUNDS):
            need = self.wanted - count
            made = _Candidates(self, table, parents, open_ends, attempt, there + attempt * _MOST_CANDIDATES)
            done, problem = self._insert(made, need)
            count += done
            reason = problem or reason
            if count >= self.wanted or not table.columns:
                break
        if not count and reason is not None:
            self.reasons[table.name] = reason

    def _parents(self, reference: Reference) -> list[tuple[str, ...]]:
        columns = ", ".join(f"{quoted(column)}::text" for column in reference.target)
        some = " AND ".join(f"{quoted(column)} IS NOT NULL" for column in reference.target)
        self.cursor.execute(
            f"SELECT {columns} FROM {self.tables[reference.table].name} WHERE {some}"  # noqa: S608 - quoted names
            f" ORDER BY {columns} LIMIT {_MOST_PARENTS}"
        )
        return self.cursor.fetchall()

    def _insert(self, made: _Candidates, need: int) -> tuple[int, str | None]:
        """Insert candidates until there are enough. If the server refuses them together, insert ever smaller parts."""
        if not made.columns:
            self.cursor.execute(f"INSERT INTO {made.table.name} SELECT FROM generate_series(1, {need})")
            return need, None
        candidates = min(_MOST_CANDIDATES, (need + 10) * 3 ** min(made.attempt + 1, 3) // 2)
        first, parts = 0, list[list[tuple[str | None, ...]]]()
        done, pieces, reason = 0, 0, None
        while (parts or first < candidates) and done < need and pieces < _MOST_PIECES:
            if not parts:
                # As many as it takes and hardly more: making them costs more than inserting them.
                parts.append(made.rows(first, min(first + _CHUNK, candidates)))
                first += _CHUNK
            part = parts.pop()
            pieces += 1
            outcome = _tried(self.cursor, made.statement(need - done), made.arguments(part))
            done += outcome.changed
            if outcome.problem is not None:
                reason = outcome.problem
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        return done, reason

    def pool(self, table: TableShape, column: ColumnShape) -> list[str]:
        """Return valid values of a column, those in the table's constraints first."""
        key = (table.name, column.name)
        if key not in self._pools:
            found = self._usual(table, column)
            spoken = [
                value
                for expression in (*table.checks, *table.bounds, *self._of_domain(column.type))
                if re.search(rf"\b(VALUE|{re.escape(column.name)})\b", expression)
                for value in values.mined(expression, column.type, self.types)
            ]
            if spoken:
                # The constraint decides, whatever the column's name is.
                found = [*found, *values.pool(column.type, self.types, meaning.salt_of(*key))]
            if self.tame:
                found = values.tamed(found)
            found = list(dict.fromkeys([*spoken, *found]))
            self._pools[key] = self._valid(column.type, found)
        return self._pools[key]

    def _usual(self, table: TableShape, column: ColumnShape) -> list[str]:
        """Return values of the column's type that are like what the column means."""
        kind = column.type
        while kind.kind == "d":
            kind = self.types[kind.base]
        if kind.name in {"json", "jsonb"}:
            return meaning.documents(column.name, column.default, self._code(table, column), tame=self.tame)
        meant = self.meaning(table, column)
        if meant is not None and meant.some:
            return list(meant.some)
        return [
            *(meaning.of_integer(column.name) if kind.name in {"int2", "int4", "int8"} else ()),
        ] or values.pool(column.type, self.types, meaning.salt_of(table.name, column.name))

    def meaning(self, table: TableShape, column: ColumnShape) -> Meaning | None:
        """Return what texts of a column mean; None if it is no column of texts, or nothing shows it."""
        key = (table.name, column.name)
        if key not in self._meanings:
            is_text = values.is_text(column.type, self.types)
            code = self._code(table, column)
            self._meanings[key] = meaning.of_text(column.name, code, tame=self.tame) if is_text else None
        return self._meanings[key]

    def _code(self, table: TableShape, column: ColumnShape) -> list[str]:
        """Return the texts of the revisions that name the table and the column."""
        bare = table.name.rpartition(".")[2].strip('"')
        return [text for text in self.texts.texts if _mentions(text, column.name) and _mentions(text, bare)]

    def distinct(self, table: TableShape, column: ColumnShape, number: int, *, by_meaning: bool) -> str | None:
        """Return the ``number``-th of many different values of a column; None if its type has few."""
        salt = meaning.salt_of(table.name, column.name)
        meant = self.meaning(table, column) if by_meaning else None
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
                return []  # its documents have what the code looks for, all in one shape
            bare = table.name.rpartition(".")[2].strip('"')
            found = [
                value
                for text in reversed(self.texts.texts)
                if _mentions(text, column.name)
                for value in values.mined(text, column.type, self.types)
                if (bare, value) not in self.texts.inserted
            ]
            meant = self.meaning(table, column)
            if meant is not None and meant.type:
                found = [value for value in found if self._valid_as(meant.type, value)]
            self._sought[key] = self._valid(column.type, list(dict.fromkeys(found))[:_MOST_SOUGHT]) if found else []
        return self._sought[key]

    def _valid_as(self, kind: str, value: str) -> bool:
        """Return whether the server takes a text for a value of a type."""
        return _tried(self.cursor, "SELECT pg_input_is_valid(%s, %s)", (value, kind)).found == ((True,),)

    def of_key(self, table: TableShape, column: ColumnShape, value: str) -> str:
        """Return a value for a unique column. A text that no constraint is on differs from those of other tables."""
        meant = self.meaning(table, column)
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
        # Before version 16, the server only says of all values together whether they are valid.
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
            outcome = _tried(self.cursor, query, (part, kind.shown))
            if outcome.problem is None:
                valid += outcome.found[0][0]
            elif len(part) > 1:
                # Not every type's input can answer without raising.
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
        self._known[key] = valid
        return valid

    # --- what had to wait ---

    def _close(self, table: TableShape, reference: Reference) -> None:
        """Point a foreign key at rows that were made after its own rows. If it may be NULL, some rows stay NULL."""
        own = ", ".join(quoted(column) for column in reference.columns)
        target = ", ".join(quoted(column) for column in reference.target)
        itself = reference.table == table.oid
        strict = _strict(table, reference)
        # In itself a table gets a tree, without circles: each row under one before it.
        which = "row.n / 2" if itself else "row.n * 7 % parent.total + 1"
        if any(unique <= set(reference.columns) for unique in table.unique):
            which = "row.n - 1" if itself else "row.n"
        some = "true" if strict else "row.n % 5 > 0"
        update = f"""
            UPDATE {table.name} SET ({own}) = ROW({", ".join(f"parent.{quoted(each)}" for each in reference.target)})
            FROM (SELECT ctid AS place, row_number() OVER (ORDER BY ctid) AS n FROM {table.name}) AS row
            JOIN (SELECT {target}, row_number() OVER (ORDER BY {target}) AS n, count(*) OVER () AS total
                  FROM {self.tables[reference.table].name}) AS parent ON parent.n = {which}
            WHERE {table.name}.ctid = row.place AND {some}
        """  # noqa: S608 - quoted names
        problem = _tried(self.cursor, update).problem
        if strict and not itself:
            # Rows were put in without looking at this key.
            own_row = " AND ".join(
                f"parent.{quoted(there)} = {table.name}.{quoted(here)}"
                for here, there in zip(reference.columns, reference.target, strict=True)
            )
            parent = self.tables[reference.table].name
            self.cursor.execute(
                f"DELETE FROM {table.name} WHERE NOT EXISTS (SELECT FROM {parent} AS parent WHERE {own_row})"  # noqa: S608
            )
            if problem is not None:
                self.reasons[table.name] = problem

    def _advance_sequences(self, table: TableShape) -> None:
        """Advance the sequences of a table's columns past the inserted values."""
        for column in table.columns:
            if column.counts:
                name = quoted(column.name)
                _tried(
                    self.cursor,
                    f"SELECT setval(sequence, greatest((SELECT max({name}) FROM {table.name}), 1))"  # noqa: S608
                    " FROM pg_get_serial_sequence(%s, %s) AS sequence WHERE sequence IS NOT NULL",
                    (table.name, column.name),
                )


class _Candidates:
    """Candidates for a table's rows, and the statement that inserts those that satisfy its constraints."""

    def __init__(
        self,
        seeding: _Seeding,
        table: TableShape,
        parents: Mapping[Reference, Sequence[tuple[str, ...]]],
        open_ends: Sequence[Reference],
        attempt: int,
        start: int,
    ) -> None:
        self.table = table
        self.attempt = attempt
        self._seeding = seeding
        self._parents = parents
        self._start = start
        self._random = random.Random(f"{table.name} {attempt}")  # noqa: S311 - the same in every run is the point
        self._keys = {column for unique in table.unique for column in unique}
        waiting = [reference for reference in open_ends if reference not in parents]
        strict = [reference for reference in waiting if _strict(table, reference)]
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
            and (not column.counts or column.name in given or _mentions(expressions, column.name))
        ]
        self._triggers_off = bool(self._placeholders) or attempt == _ROUNDS - 1

    def rows(self, first: int, end: int) -> list[tuple[str | None, ...]]:
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
        """Return the row with the key of a parent, or NULL, in those of the reference's columns that it lacks."""
        # Kept whole: each branch draws from the one random sequence, and its order decides which rows are made.
        chosen = self._random
        columns = reference.columns
        # A foreign key that shares columns with an earlier one needs a parent with the same values there.
        fitting = [
            parent
            for parent in (parents if any(column in row for column in columns) else ())
            if all(row.get(column, value) == value for column, value in zip(columns, parent, strict=True))
        ] or parents
        if not fitting or (not _strict(self.table, reference) and chosen.random() < self._null_share()):
            return {**{column: None for column in columns if not self.table.column(column).not_null}, **row}
        if not set(columns) & self._keys:
            return {**dict(zip(columns, chosen.choice(fitting), strict=True)), **row}
        row = {**dict(zip(columns, fitting[(self._start + number) % len(fitting)], strict=True)), **row}
        alone = any(unique <= set(columns) for unique in self.table.unique)
        if not alone and chosen.random() < 0.5:  # noqa: PLR2004 - unique pairs need some out of order
            row.update(zip(columns, chosen.choice(fitting), strict=True))
        return row

    def _null_share(self) -> float:
        return (0.12, 0.5, 0.0, 0.3, 0.7, 0.12)[self.attempt]

    def _value(self, column: ColumnShape, number: int) -> str | None:
        # Kept whole, as `_with_reference`: the order of the draws decides which values are made.
        if column.name in self._left_open:
            return None
        key = column.name in self._keys or column.counts
        if not column.not_null and self._random.random() < self._null_share() / (3 if key else 1):
            return None
        pool = self._seeding.pool(self.table, column)
        if (
            column.counts
            or column.name in self._placeholders
            or (key and self._random.random() < self._distinct_share())
        ):
            # What a column means may not be what its constraints allow.
            usual = self.attempt not in {3, 5}
            found = self._seeding.distinct(self.table, column, self._start + number, by_meaning=usual)
            if found is not None:
                return found
        sought = self._seeding.sought(self.table, column)
        if sought and not key and number % _SOUGHT_EVERY == 0:
            return sought[number // _SOUGHT_EVERY % len(sought)]
        if not pool:
            return None
        # What constraints speak of stands first.
        few = pool[:12] if self.attempt in {2, 4} else pool
        chosen = self._random.choice(few)
        return self._seeding.of_key(self.table, column, chosen) if key else chosen

    def _distinct_share(self) -> float:
        return (0.9, 0.9, 0.3, 0.9, 0.5, 0.9)[self.attempt]

    def arguments(self, rows: Sequence[tuple[str | None, ...]]) -> list[list[str | None]]:
        return [list(column) for column in zip(*rows, strict=True)]

    def statement(self, limit: int) -> str:
        """Return the INSERT of what no constraint refuses. Its arguments are a list of texts for each column."""
        names = [quoted(column.name) for column in self.columns]
        arrays = ", ".join(["%s::text[]"] * len(names))
        cast = ", ".join(
            f"each.c{at}::{column.type.shown} AS {name}"
            for at, (column, name) in enumerate(zip(self.columns, names, strict=True))
        )
        made = "".join(
            f", LATERAL (SELECT {column.generated} AS {quoted(column.name)}) AS made_{at}"
            for at, column in enumerate(self.table.columns)
            if column.generated is not None
        )
        conditions = [f"(({check}) IS NOT FALSE)" for check in self.table.checks]
        conditions += [f"{quoted(column.name)} IS NOT NULL" for column in self.columns if column.not_null]
        if self.table.bounds:
            conditions.append(f"({' OR '.join(f'({bound})' for bound in self.table.bounds)})")
        columns = ", ".join(names)
        texts = ", ".join(f"c{at}" for at in range(len(names)))
        # An alias of the table's own name, for what names its columns with it.
        alias = self.table.name.rpartition(".")[2]
        head = f"INSERT INTO {self.table.name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM (SELECT {cast}"  # noqa: S608 - quoted
        tail = (
            f"WITH ORDINALITY AS each ({texts}, place) ORDER BY place) AS {alias}{made}"
            f" WHERE {' AND '.join(conditions) or 'true'} LIMIT {limit}"
            f"{'' if self.table.deferrable else ' ON CONFLICT DO NOTHING'}"
        )
        role = "replica" if self._triggers_off else "origin"
        # A percent sign in an expression is not psycopg2's.
        head, tail = head.replace("%", "%%"), tail.replace("%", "%%")
        return f"SET LOCAL session_replication_role = {role}; {head} FROM unnest({arrays}) {tail}"


def _mentions(expressions: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", expressions) is not None


def _columns_of(references: Iterable[Reference]) -> set[str]:
    return {column for reference in references for column in reference.columns}


def _strict(table: TableShape, reference: Reference) -> bool:
    """Return whether every row must refer: none of the columns may be NULL."""
    return all(table.column(column).not_null for column in reference.columns)


def _needed(table: TableShape, left: Mapping[int, TableShape], *, nullable: bool = True) -> bool:
    """Return whether a table refers to another of these."""
    return any(
        reference.table != table.oid and reference.table in left and (nullable or _strict(table, reference))
        for reference in table.references
    )


def _counts(cursor: cursor, names: Mapping[int, str]) -> dict[int, int]:
    if not names:
        return {}
    each = " UNION ALL ".join(f"SELECT {oid}, count(*) FROM {name}" for oid, name in names.items())  # noqa: S608
    cursor.execute(each)
    return dict(cursor.fetchall())
