"""The data classes of measurements: a schema, a statement, an execution, and a revision that ran up, down and up again.

Names of tables, indexes and types contain their schema, unless it is ``public``. A table's ``oid`` and a column's
``number`` stay the same when it is renamed. They distinguish a rename from a drop and an add.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

# SQLSTATE classes that show that a revision refused the rows: values that do not fit, violated constraints, and several
# rows where one is expected.
REFUSED_ROWS = ("22", "23", "21")
# The time zone of the review's database. It is not UTC, and no revision sets it, so values that depend on the session's
# time zone differ from those in UTC. It has no daylight saving time, so no local time is missing or ambiguous.
TIME_ZONE = "Asia/Kathmandu"
# A statement that touches a tenth of a few hundred rows, and at least ten, touches more rows of a larger table.
_SHARE = 10
_FEWEST = 10


def is_share(count: int, rows: int) -> bool:
    """Return whether a statement that touches ``count`` of ``rows`` rows would touch more in a larger table."""
    return bool(rows) and count >= max(_FEWEST, rows / _SHARE)


@dataclass(frozen=True)
class Column:
    """A column of a table. ``type`` is the result of `format_type`, and ``default`` an SQL expression.

    The ``default`` of a ``generated`` column is its expression. ``collation`` is None if it is that of the type.
    """

    number: int
    name: str
    type: str
    not_null: bool
    default: str | None
    generated: bool
    identity: bool
    collation: str | None = None


@dataclass(frozen=True)
class Constraint:
    """A constraint of a table. ``kind`` is pg_constraint's contype; ``definition`` is `pg_get_constraintdef`'s.

    ``columns`` are the constrained ones, in the constraint's order; ``references`` is a foreign key's other table.
    ``oid`` stays when it is renamed.
    """

    name: str
    kind: str
    definition: str
    columns: tuple[str, ...]
    validated: bool
    references: str | None = None
    oid: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Index:
    """An index of a table. ``columns`` are its plain key columns up to the first expression.

    ``constraint`` is True if it belongs to a primary key, a unique or an exclusion constraint. ``partial`` is True if
    it has a WHERE.
    """

    name: str
    definition: str
    columns: tuple[str, ...]
    unique: bool
    valid: bool
    constraint: bool
    partial: bool
    oid: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Table:
    """An ordinary or partitioned table, without the version table.

    ``partition_rows`` is the condition of the rows of a partition.
    """

    oid: int
    name: str
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]
    partition_rows: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class MaterializedView:
    """A materialized view. ``concurrent`` is True if a unique index allows a concurrent refresh."""

    oid: int
    name: str
    populated: bool
    concurrent: bool


@dataclass(frozen=True)
class View:
    """A view or materialized view. ``columns`` maps each column to its type; a domain counts as its base type.

    ``writes`` are those of INSERT, UPDATE and DELETE that the view accepts, by its triggers and rules, too. ``written``
    are the columns that accept values. ``as_caller`` is True if it reads its tables with the rights of the caller.
    """

    columns: Mapping[str, str]
    writes: frozenset[str]
    written: frozenset[str]
    as_caller: bool

    @property
    def writable(self) -> bool:
        """Return whether the view accepts INSERT, UPDATE and DELETE."""
        return len(self.writes) == 3  # noqa: PLR2004 - all of them


@dataclass(frozen=True)
class Catalog:
    """A database's schema at one moment.

    ``enums`` maps a type to its labels, in order, each with its oid, which stays the same in a rename. ``others`` maps
    the name of each other object, such as ``view reports.daily``, to its definition: views, functions, triggers,
    sequences, policies, comments, privileges, extensions, domains ... ``views`` are the views and the materialized
    views, by name.
    """

    tables: tuple[Table, ...]
    enums: Mapping[str, tuple[tuple[int, str], ...]]
    others: Mapping[str, str]
    materialized: tuple[MaterializedView, ...] = ()
    views: Mapping[str, View] = field(default_factory=dict)

    def table(self, oid: int) -> Table | None:
        """Return the table with this oid, or None."""
        return next((table for table in self.tables if table.oid == oid), None)

    def table_settings(self, name: str) -> str:
        """Return the settings of a table, such as its parents, row-level security and storage parameters."""
        return self.others.get(f"table settings {name}", "")

    def column_settings(self, table: str, column: str) -> str:
        """Return the settings of a column, such as its generation, its storage and its privileges."""
        names = (column, identifier(column))
        return next((found for name in names if (found := self.others.get(f"column settings {table}.{name}"))), "")

    def is_virtual(self, table: str, column: str) -> bool:
        """Return whether a column's values are computed when they are read."""
        return "generated v" in self.column_settings(table, column)

    def table_named(self, name: str) -> Table | None:
        """Return the table of this name, or None."""
        return next((table for table in self.tables if table.name == name), None)


@dataclass(frozen=True)
class Numbering:
    """A column with the numbers of a sequence: the sequence's ``next`` number, and the ``highest`` in the table."""

    table: str
    column: str
    sequence: str
    next: int
    highest: int | None


@dataclass(frozen=True)
class Access:
    """Owners and privileges, which the schema does not contain.

    ``owners`` maps each relation, schema, function and type to its owner. ``privileges`` maps each of them and a
    grantee to the grantee's privileges, including the defaults of the owner and of PUBLIC. Their names have the form
    ``table orders``. ``numberings`` are the columns with numbers of a sequence. ``settings`` are pairs of a role or
    database and ``name=value``. ``roles`` maps each role to its attributes and memberships.
    """

    owners: Mapping[str, str]
    privileges: Mapping[tuple[str, str], frozenset[str]]
    numberings: tuple[Numbering, ...]
    settings: frozenset[tuple[str, str]] = frozenset()
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Write:
    """The result of a write after the revision. ``kind`` is INSERT, UPDATE or DELETE.

    ``failure`` is its error for every row that was tried, or None if it works. ``function`` is True if a function that
    the write calls raised the error. ``reads`` maps each other table that it reads completely to the number of rows.
    """

    table: str
    kind: str
    failure: str | None = None
    sqlstate: str | None = None
    function: bool = False
    reads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Zoned:
    """A new column whose values are those of ``source``, converted in the time zone of the session."""

    table: str
    column: str
    source: str


@dataclass(frozen=True)
class Lock:
    """A table lock as pg_locks shows it, for example ``AccessExclusiveLock``."""

    table: str
    mode: str


@dataclass(frozen=True)
class Statement:
    """One statement of a revision, and its effects on tables that existed before the revision.

    - ``sql``: the statement with its parameters.
    - ``locks``: the locks that it took or made stronger.
    - ``scanned``: the tables of which it reads more rows if they have more: sequentially, through an index, or to check
      a foreign key. ``read`` is the number of rows read from each.
    - ``changed``: the number of rows that it updated or deleted. ``rewritten`` are the tables with a new file.
    - ``in_transaction``: False in an autocommit block, where the statement's locks end with it.
    - ``after_commit``: whether the revision ended a transaction before the statement.
    - ``locked``: the number of rows that a query with FOR UPDATE or FOR SHARE locks.
    - ``bounded``: whether it is a batch, for a part of the rows and in its own transaction.
    - ``idle_ms``: the time between the statement before and this one, in an open transaction.
    - ``time_zone``: the session's, or None if the statement was not measured.
    """

    sql: str
    duration_ms: float
    in_transaction: bool
    locks: tuple[Lock, ...] = ()
    scanned: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    read: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    locked: Mapping[str, int] = field(default_factory=dict)
    bounded: bool = False
    idle_ms: float = 0.0
    time_zone: str | None = None
    after_commit: bool = False

    @property
    def begins_without_locks(self) -> bool:
        """Return whether no lock of an earlier statement is held. Alembic commits before an autocommit block, too."""
        return self.after_commit or not self.in_transaction


@dataclass(frozen=True)
class Execution:
    """One execution of a revision's upgrade or downgrade.

    ``failure`` is the error in one line with its SQLSTATE, or None after a success. ``failed_sql`` is the statement
    that the server refused, if a statement failed. ``empty`` is True if the source of the function does nothing.
    ``idle_ms`` is the time for which the transaction stayed open after the last statement. ``rendered`` is True if
    Alembic rendered the statements without a database; they did not run and are not measured. ``left_out`` are the
    parts of the revision that did not run, or that the review cannot see.
    """

    statements: tuple[Statement, ...]
    failure: str | None = None
    failed_sql: str | None = None
    sqlstate: str | None = None
    empty: bool = False
    rendered: bool = False
    idle_ms: float = 0.0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """The difference of a table's rows from before the upgrade to after the downgrade.

    ``lost`` and ``added`` are numbers of rows. ``changed`` is the number of rows with another value, by column.
    ``example`` is one change in words, such as ``id=7: email 'ann@example.org' became NULL``. ``examples`` has one for
    each column.
    """

    table: str
    rows: int
    lost: int
    added: int
    changed: Mapping[str, int]
    example: str
    examples: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """All measurements of one revision.

    A phase is None if an earlier phase failed.

    - ``rows``: the number of rows of each table before the revision. ``unfilled`` maps each table that stayed empty to
      the reason.
    - ``refused``: a first upgrade that failed on rows that the old schema allows (NULLs, duplicates, orphans ...). The
      other phases then ran with rows that the upgrade accepts.
    - ``writes``: writes of the application that the revision changed: they fail after it, or read whole tables.
    - ``zoned``: new columns with the values of another column, converted in the time zone of the session.
    - ``shown_before``, ``shown_after``: the numbers of rows that the application sees, as `measure.shown` counts them.
    - ``orphans``: the number of rows of a table that refer to a missing row of another table, by both names.
    - ``downgrade_refused``: a second downgrade that failed on rows that only the new schema allows.
    - ``reruns``: upgrades that ran again after the revision was stopped at a commit: the number of the statement,
      from 1, and the run from there on. None if there was no such run.
    - ``schema_before``, ``schema_after``: the digests of all objects, if the review is recorded.
    - ``unmeasured``: the reasons why a part or all of the revision was not measured, each with the fix.
    """

    revision: str
    rows: Mapping[str, int]
    unfilled: Mapping[str, str]
    before: Catalog
    upgrade: Execution
    after: Catalog | None = None
    downgrade: Execution | None = None
    restored: Catalog | None = None
    changes: tuple[Change, ...] = ()
    upgrade_again: Execution | None = None
    again: Catalog | None = None
    refused: Execution | None = None
    reruns: tuple[tuple[int, Execution], ...] | None = None
    unmeasured: tuple[str, ...] = ()
    schema_before: Mapping[str, str] | None = None
    schema_after: Mapping[str, str] | None = None
    access_before: Access | None = None
    access_after: Access | None = None
    writes: tuple[Write, ...] = ()
    zoned: tuple[Zoned, ...] = ()
    shown_before: Mapping[str, int] = field(default_factory=dict)
    shown_after: Mapping[str, int] = field(default_factory=dict)
    orphans: Mapping[tuple[str, str], int] = field(default_factory=dict)
    downgrade_refused: Execution | None = None
