"""The vocabulary of measurements: a schema, a statement, a pass, and a revision that ran up, down and up again.

Tables, indexes and types are named as PostgreSQL shows them with every schema but ``public`` written out. A table's
``oid`` and a column's ``number`` stay when it is renamed, so that a rename differs from a drop and an add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# SQLSTATE classes of values that do not fit and of violated constraints: the revision refused the rows it met.
REFUSED_ROWS = ("22", "23")
# How a failure begins if the revision did not run because one before it failed.
NOT_REACHED = "not reached:"


@dataclass(frozen=True)
class Column:
    """A column of a table. ``type`` is as `format_type` gives it, ``default`` an SQL expression."""

    number: int
    name: str
    type: str
    not_null: bool
    default: str | None
    generated: bool
    identity: bool


@dataclass(frozen=True)
class Constraint:
    """A constraint of a table. ``kind`` is pg_constraint's contype; ``definition`` is `pg_get_constraintdef`'s.

    ``columns`` are the constrained ones, in the constraint's order; ``references`` is a foreign key's other table.
    """

    name: str
    kind: str
    definition: str
    columns: tuple[str, ...]
    validated: bool
    references: str | None = None


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
    method: str


@dataclass(frozen=True)
class Table:
    """An ordinary or partitioned table, without the version table."""

    oid: int
    name: str
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]


@dataclass(frozen=True)
class Catalog:
    """A database's schema at one moment.

    ``enums`` maps a type to its labels, in order, each with its oid, so that a rename shows. ``others`` holds the
    definition of everything else that a revision can make (views, functions, triggers, sequences, policies, comments,
    privileges, extensions, domains ...) by a name such as ``view reports.daily``.
    """

    tables: tuple[Table, ...]
    enums: Mapping[str, tuple[tuple[int, str], ...]]
    others: Mapping[str, str]

    def table(self, oid: int) -> Table | None:
        """Return the table with this oid, or None."""
        return next((table for table in self.tables if table.oid == oid), None)

    def table_named(self, name: str) -> Table | None:
        """Return the table of this name, or None."""
        return next((table for table in self.tables if table.name == name), None)


@dataclass(frozen=True)
class Lock:
    """A table lock as pg_locks shows it, for example ``AccessExclusiveLock``."""

    table: str
    mode: str


@dataclass(frozen=True)
class Statement:
    """One statement of a revision and what it did to tables that were there before the revision.

    ``sql`` has its parameters filled in. ``locks`` are those it took or made stronger; ``scanned`` are tables with rows
    that it read as a whole, ``rewritten`` those whose file it wrote anew. ``in_transaction`` is False in an autocommit
    block, where locks are gone when the statement is.
    """

    sql: str
    duration_ms: float
    in_transaction: bool
    locks: tuple[Lock, ...] = ()
    scanned: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """One direction of a revision. ``failure`` is the error in one line, SQLSTATE included, None when it went through.

    ``failed_sql`` is the statement that the server refused, if it was one. ``empty`` says that the function does
    nothing at all, by its source.
    """

    statements: tuple[Statement, ...]
    failure: str | None = None
    failed_sql: str | None = None
    sqlstate: str | None = None
    empty: bool = False


@dataclass(frozen=True)
class Change:
    """The difference of a table's rows from before the upgrade to after the downgrade.

    ``lost`` rows are gone; ``changed`` counts, by column, the rows whose value is another one; ``added`` rows are new.
    ``example`` is one change in words, as ``id=7: 'ann@example.org' became NULL``.
    """

    table: str
    rows: int
    lost: int
    added: int
    changed: Mapping[str, int]
    example: str


@dataclass(frozen=True)
class Observation:
    """All measurements of one revision.

    ``rows`` is how many rows each table had before; ``unfilled`` names tables that stayed empty, and why. What was not
    reached, because something before it failed, is None. ``refused`` is a first upgrade that failed on rows which the
    schema before it allows (NULLs, duplicates, orphans ...): all the rest was then measured with rows that it takes.
    """

    revision: str
    rows: Mapping[str, int]
    unfilled: Mapping[str, str]
    before: Catalog
    upgrade: Pass
    after: Catalog | None = None
    downgrade: Pass | None = None
    restored: Catalog | None = None
    changes: tuple[Change, ...] = ()
    upgrade_again: Pass | None = None
    again: Catalog | None = None
    refused: Pass | None = None
