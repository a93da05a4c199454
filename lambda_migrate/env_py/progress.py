"""Keeps what an interrupted run has committed of a revision, so that the next run does not run it again.

A revision with an autocommit block commits what it did before the block, without its version. If the run is killed
after that, the next one begins the revision again and fails with "already exists". So just before such a commit, in the
same transaction, digests of the revision's statements are noted in the comment of the version table. The next run skips
these statements if the schema is as they left it. If it then runs another one, the revision begins again and nothing is
skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import literal, qualified

if TYPE_CHECKING:
    import sqlalchemy

    from lambda_migrate.invocation.result import VersionTable

_MARK = "lambda_migrate: "
_DIGEST_CHARACTERS = 12
# A revision with more statements than this is not resumed: the comment would grow too long.
_MOST_STATEMENTS = 1000

# The tables, columns, constraints, functions and types. Left out is what the statements of an autocommit block change:
# indexes, the values of an enum, and whether a constraint was validated.
_CATALOG = """
WITH spaces AS (
    SELECT oid FROM pg_namespace WHERE NOT nspname ~ '^pg_' AND nspname <> 'information_schema'
)
SELECT md5(string_agg(part, ',' ORDER BY part)) FROM (
    SELECT concat_ws(' ', c.oid, c.relname, c.relkind, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
        a.atthasdef) AS part
    FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind <> 'i' AND c.relkind <> 'I'
    UNION ALL SELECT concat_ws(' ', k.oid, k.conname) FROM pg_constraint k JOIN spaces s ON s.oid = k.connamespace
    UNION ALL SELECT concat_ws(' ', p.oid, p.proname, md5(p.prosrc)) FROM pg_proc p
    JOIN spaces s ON s.oid = p.pronamespace
    UNION ALL SELECT concat_ws(' ', t.oid, t.typname) FROM pg_type t JOIN spaces s ON s.oid = t.typnamespace
) AS parts
"""


class RunsOtherStatements(Exception):  # noqa: N818 - not an error: the revision begins again
    """The revision runs another statement than the interrupted run did, after some were skipped."""

    def __init__(self) -> None:
        super().__init__("the revision runs other statements than the run that was interrupted")


@dataclass
class Progress:
    """What was committed of the running revision, in the comment of one version table.

    ``comment`` is the table's comment, ``may_comment`` is True if the session's role may change it. With ``resumes``
    False, nothing is skipped.
    """

    table: VersionTable
    comment: str | None
    may_comment: bool
    resumes: bool
    _step: str = ""
    # Digests of the revision's statements so far. Those up to `_committed` are committed.
    _statements: list[str] = field(default_factory=list)
    _committed: int = 0
    # True if the revision got rows from a statement that wrote them: to skip it would lose them.
    _returned: bool = False
    _applied: bool = False
    _left: list[str] = field(default_factory=list)
    _left_catalog: str = ""

    def start(self, step: str) -> None:
        """Begin a step such as "upgrade ad63c8f0e217"."""
        self._step, self._statements, self._committed = step, [], 0
        self._returned = self._applied = False
        self._left, self._left_catalog = self._noted(step) if self.resumes else ([], "")

    def is_committed(self, connection: sqlalchemy.Connection, statement: str, parameters: object) -> bool:
        """Return whether an interrupted run has committed this statement, which is the revision's next one.

        Raises:
            RunsOtherStatements: it has committed others, and some of them were skipped.
        """
        if not self._left:
            return False
        digest = _digest(statement, parameters)
        at = len(self._statements)
        if at == 0 and (digest != self._left[0] or _catalog(connection) != self._left_catalog):
            self._left = []
            return False
        if digest != self._left[at]:
            raise RunsOtherStatements
        self._statements.append(digest)
        self._committed = len(self._statements)
        if self._committed == len(self._left):
            self._left = []
        return True

    def ran(self, statement: str, parameters: object, *, returned: bool) -> None:
        """Note a statement that ran in a transaction."""
        self._statements.append(_digest(statement, parameters))
        self._returned |= returned

    def rolled_back(self) -> None:
        """Forget the statements that were not committed."""
        del self._statements[self._committed :]

    def note(self, connection: sqlalchemy.Connection) -> None:
        """Write the comment, just before a commit that does not write the version."""
        if self._applied or not self.may_comment or self._returned or len(self._statements) > _MOST_STATEMENTS:
            return
        if len(self._statements) > self._committed:
            noted = {"step": self._step, "statements": self._statements, "catalog": _catalog(connection)}
            self._write(connection, "\n".join(filter(None, [self._own_comment(), f"{_MARK}{json.dumps(noted)}"])))
            self._committed = len(self._statements)

    def clear(self, connection: sqlalchemy.Connection) -> None:
        """Take the note out of the comment, in the transaction that writes the version."""
        self._applied = True
        if self.comment is not None and _MARK in self.comment:
            self._write(connection, self._own_comment())

    def _own_comment(self) -> str | None:
        return (self.comment or "").partition(_MARK)[0].removesuffix("\n") or None

    def _noted(self, step: str) -> tuple[list[str], str]:
        try:
            noted = json.loads((self.comment or "").partition(_MARK)[2] or "{}")
            if noted.get("step") == step:
                return [str(each) for each in noted["statements"]], str(noted["catalog"])
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # somebody else's comment
        return [], ""

    def _write(self, connection: sqlalchemy.Connection, comment: str | None) -> None:
        schema, name = ('"{}"'.format(part.replace('"', '""')) for part in (self.table.schema, self.table.name))
        text = "NULL" if comment is None else literal(comment)
        statement = f"COMMENT ON TABLE {schema}.{name} IS {text}"
        doubled = statement.replace("%", "%%") if connection.dialect.paramstyle in {"format", "pyformat"} else statement
        connection.exec_driver_sql(doubled)
        self.comment = comment


def _catalog(connection: sqlalchemy.Connection) -> str:
    return str(connection.exec_driver_sql(qualified(_CATALOG)).scalar())


def _digest(statement: str, parameters: object) -> str:
    return hashlib.sha256(f"{statement}\n{_in_order(parameters)!r}".encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _in_order(parameters: object) -> object:
    """Return parameters as they are in each process: SQLAlchemy's dictionaries of them have no fixed order."""
    if isinstance(parameters, Mapping):
        return sorted((str(name), repr(value)) for name, value in parameters.items())
    if isinstance(parameters, list | tuple):
        return [_in_order(each) for each in parameters]
    return parameters
