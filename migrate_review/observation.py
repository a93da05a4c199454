"""The vocabulary of measurements: a schema, a statement, an execution, and a revision that ran up, down and up again.

Tables, indexes and types are named as PostgreSQL shows them with every schema but ``public`` written out. A table's
``oid`` and a column's ``number`` stay when it is renamed, so that a rename differs from a drop and an add.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

# SQLSTATE classes of values that do not fit, of violated constraints, and of several rows where one is expected: the
# revision refused the rows it met.
REFUSED_ROWS = ("22", "23", "21")
# The time zone of the review's database. It is not UTC, and no revision sets it, so that values that change with the
# session's time zone change here. It has no daylight saving time: no local time is missing, or there twice.
TIME_ZONE = "Asia/Kathmandu"
# A statement that touches a tenth of a few hundred rows, and at least ten, touches more rows of a larger table.
_SHARE = 10
_FEWEST = 10


def is_share(count: int, rows: int) -> bool:
    """Return whether a statement that touches ``count`` of ``rows`` rows would touch more in a larger table."""
    return bool(rows) and count >= max(_FEWEST, rows / _SHARE)


@dataclass(frozen=True)
class Column:
    """A column of a table. ``type`` is as `format_type` gives it, ``default`` an SQL expression.

    ``default`` of a ``generated`` column is its expression. ``collation`` is one that its type does not have.
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

    ``constraint`` says that it belongs to a primary key, unique or exclusion constraint, ``partial`` that it has a
    WHERE.
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
    """A materialized view. ``concurrent`` says that a unique index lets it be refreshed concurrently."""

    oid: int
    name: str
    populated: bool
    concurrent: bool


@dataclass(frozen=True)
class View:
    """A view, a materialized one too. ``columns`` maps each column to its type, of a domain to the type below it.

    ``writes`` are those of INSERT, UPDATE and DELETE that work on it, with its triggers and rules; ``written`` the
    columns that take values. ``as_caller`` says that it reads its tables with the rights of the role that queries it.
    """

    columns: Mapping[str, str]
    writes: frozenset[str]
    written: frozenset[str]
    as_caller: bool

    @property
    def writable(self) -> bool:
        """Whether INSERT, UPDATE and DELETE work on it."""
        return len(self.writes) == 3  # noqa: PLR2004 - all of them


@dataclass(frozen=True)
class Catalog:
    """A database's schema at one moment.

    ``enums`` maps a type to its labels, in order, each with its oid, so that a rename shows. ``others`` holds the
    definition of everything else that a revision can make (views, functions, triggers, sequences, policies, comments,
    privileges, extensions, domains ...) by a name such as ``view reports.daily``. ``views`` are the views, the
    materialized ones too, by name.
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
        """Return the settings of a column, such as how it is generated, its storage and its privileges."""
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
    """A column that a sequence numbers: the sequence's next number, and the highest that the table has."""

    table: str
    column: str
    sequence: str
    next: int
    highest: int | None


@dataclass(frozen=True)
class Access:
    """Owners and privileges, which the schema does not contain.

    ``owners`` maps each relation, schema, function and type to its owner, ``privileges`` each of them, with a grantee,
    to what the grantee may do; an owner and PUBLIC have what is theirs by default. Both name things as
    ``table orders``. ``numberings`` are the columns that sequences number. ``settings`` are those of roles and of the
    database: whose they are, with the setting as ``name=value``. ``roles`` maps each role to what it may do or be.
    """

    owners: Mapping[str, str]
    privileges: Mapping[tuple[str, str], frozenset[str]]
    numberings: tuple[Numbering, ...]
    settings: frozenset[tuple[str, str]] = frozenset()
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Write:
    """The result of one row's write after the revision. ``kind`` is INSERT, UPDATE or DELETE.

    ``failure`` is why it fails, for every row that was tried, None if it works. ``function`` says that the failure came
    from a function that the write calls. ``reads`` are other tables that it reads as a whole, with their rows.
    """

    table: str
    kind: str
    failure: str | None = None
    sqlstate: str | None = None
    function: bool = False
    reads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Zoned:
    """A new column whose values are those of ``source``, in the same row, in the time zone of the session."""

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
    """One statement of a revision and what it did to tables that were there before the revision.

    ``sql`` has its parameters filled in. ``locks`` are those it took or made stronger. ``scanned`` are the tables of
    which it reads more rows the more they have: as a whole, through an index, or to check a foreign key; ``read`` is
    how many rows it read of them. ``changed`` is how many rows it updated or deleted. ``rewritten`` are the tables
    whose file it wrote anew. ``in_transaction`` is False in an autocommit block, where locks are gone when the
    statement is. ``after_commit`` says that the revision ended a transaction before it. ``locked`` is how many rows a
    query with FOR UPDATE or FOR SHARE locks. ``bounded`` says that it is for some rows of many, in a transaction of its
    own: a batch.

    ``idle_ms`` is the time that the open transaction waited for it, after the statement before. ``time_zone`` is the
    session's, None if the statement was not measured.
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

    ``failure`` is the error in one line with its SQLSTATE, None after a success.
    ``failed_sql`` is the statement that the server refused, if it was one. ``empty`` says that the function does
    nothing at all, by its source. ``idle_ms`` is the time that the transaction stayed open after the last statement.
    ``rendered`` says that the statements were not run: Alembic wrote them without a database, as far as that goes, and
    nothing of them is measured. ``left_out`` are parts of the revision that did not run, or that the review cannot see.
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

    ``lost`` rows are gone; ``changed`` counts, by column, the rows whose value is another one; ``added`` rows are new.
    ``example`` is one change in words, as ``id=7: email 'ann@example.org' became NULL``; ``examples`` has one for each
    column.
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

    ``rows`` is how many rows each table had before; ``unfilled`` names tables that stayed empty, and why. What was not
    reached, because something before it failed, is None. ``refused`` is a first upgrade that failed on rows which the
    schema before it allows (NULLs, duplicates, orphans ...): all the rest was then measured with rows that it takes.

    ``writes`` are the writes of the application that the revision changed: they fail after it, or read whole tables.
    ``zoned`` are new columns whose values are another column's in the time zone of the session.
    ``shown_before`` and ``shown_after`` are the numbers of rows that the application sees, as `measure.shown` counts
    them. ``orphans`` counts the rows of a table that refer to no row of another one, by both names.
    ``downgrade_refused`` is a second downgrade that failed on rows which only the schema after the revision allows.

    ``reruns`` are the upgrades that were run again after the revision was stopped between two statements of which the
    first one was committed: each place, from 1, with the run from there on. They are None if that was not tried.
    ``schema_before`` and ``schema_after`` are the digests of all objects, where a review is recorded.
    ``unmeasured`` are the reasons why something of it, or all, could not be measured, each with what to do.
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
