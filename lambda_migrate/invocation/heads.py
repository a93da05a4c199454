"""Checks the content of a version table before anything relies on it: the number of rows, and the form of the ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.request import REVISION_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

# A version table has a row for each branch. An answer must not grow with a table that something else filled.
MOST_HEADS = 1000
# The longest id that an event may name. Alembic's own column holds 32 characters.
LONGEST_ID = 255
# Of all ids together. An answer has them twice, and Step Functions passes on 256 KB.
_MOST_CHARACTERS = 32 * MOST_HEADS
# Ordinary and partitioned tables, in pg_class.relkind.
_TABLES = frozenset({"r", "p"})
# Words with their own meaning in Alembic.
_WORDS = frozenset({"head", "heads", "base", "current"})

# A SELECT takes one row more than may be there, and no value that is longer, so that the answer is small.
COLUMN = f"CASE WHEN octet_length(version_num::text) <= {4 * LONGEST_ID} THEN version_num END"
LIMIT = f"LIMIT {MOST_HEADS + 1}"


def heads_of(values: Iterable[object], table: str) -> tuple[str, ...]:
    """Return the revisions of a version table, sorted.

    Raises:
        ConfigurationError: the table holds something that cannot be a database's revisions.
    """
    heads: set[str] = set()
    for value in values:
        if not isinstance(value, str):
            kind = "NULL or a very long value" if value is None else f"a value of type {type(value).__name__}"
            raise _wrong(table, f"{kind} in version_num")
        if not value:
            raise _wrong(table, "an empty text in version_num")
        if len(value) > LONGEST_ID:
            raise _wrong(table, f"a value of {len(value):,} characters in version_num")
        if value in heads:
            raise _wrong(table, f"the revision {value!a} twice")
        heads.add(value)
        if len(heads) > MOST_HEADS:
            raise _wrong(table, f"more than {MOST_HEADS:,} rows")
    characters = sum(map(len, heads))
    if characters > _MOST_CHARACTERS:
        raise _wrong(table, f"{len(heads):,} rows with {characters:,} characters")
    return tuple(sorted(heads))


def check_kind(kind: str, table: str) -> None:
    """Raise `ConfigurationError` if a version table with this relkind is no table.

    The function never reads a view, whose functions would run with the rights of its own session.
    """
    if kind not in _TABLES:
        raise ConfigurationError(f"the version table {table} is no table: drop it, and stamp the database")


def check_ids(heads: Iterable[str], table: str) -> None:
    """Raise `ConfigurationError` if one of the revisions can be the id of none, in this or any other package."""
    for head in heads:
        if head in _WORDS or not REVISION_ID.fullmatch(head):
            raise _wrong(table, f"{head[:60]!a}, which cannot be a revision")


def _wrong(table: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the version table {table} holds {what}: something other than Alembic wrote it, or it is another table;"
        " correct its rows by hand, or name Alembic's own version_table in env.py"
    )
