"""Keeps what an interrupted run has committed of a revision, so that the next run does not run it again.

A revision with an autocommit block commits what it did before the block, without its version. If the run is killed
after that, the next one begins the revision again and fails with "already exists". So just before such a commit, in the
same transaction, digests of the revision's statements are noted in the comment of the version table. The next run skips
them if the schema is exactly as they left it.

Only statements are skipped whose whole effect the catalog shows, such as ALTER TABLE. A revision that does anything
else before a block, such as an UPDATE, begins from its start, as under plain Alembic. So does one that runs other
statements than the interrupted run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.qualified import literal, qualified

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy

    from lambda_migrate.invocation.result import VersionTable

_MARK = "lambda_migrate: "
_DIGEST_CHARACTERS = 12
# A revision with more statements than this is not resumed: the comment would grow too long.
_MOST_STATEMENTS = 1000

# Statements whose effect `_CATALOG` shows. It leaves indexes out, because a block builds and drops them, and it cannot
# show rows.
_SHOWN = re.compile(
    r"\s*(CREATE|ALTER|DROP)\s+(UNLOGGED\s+)?(TABLE|TYPE|DOMAIN|SEQUENCE|SCHEMA)\b(?!.*(\b(INDEX|CLUSTER)\b|;\s*\S))"
    r"(?!.*\bAS\s*\(?\s*(SELECT|WITH|TABLE|VALUES|EXECUTE)\b)",
    re.IGNORECASE | re.DOTALL,
)
# A query that may do something, as a function may. It is run each time.
_MAY_ACT = re.compile(r"\bSELECT\b.*(\(|\bINTO\b)", re.IGNORECASE | re.DOTALL)

_CATALOG = """
WITH spaces AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
    WHERE NOT nspname ~ '^pg_' AND nspname <> 'information_schema'
)
SELECT md5(string_agg(part, ',' ORDER BY part)) FROM (
    SELECT concat_ws(' ', 's', oid, nspname, nspowner, nspacl) AS part FROM spaces
    UNION ALL SELECT concat_ws(' ', 'c', c.oid, c.relname, c.relkind, c.relnamespace, c.relowner, c.relam,
        c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relispartition, c.relacl,
        c.reloptions, pg_get_expr(c.relpartbound, c.oid))
    FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace WHERE c.relkind <> 'i' AND c.relkind <> 'I'
    UNION ALL SELECT concat_ws(' ', 'a', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
        a.attidentity, a.attgenerated, a.attcollation, a.attstorage, a.attstattarget, a.attoptions, a.attacl, d.oid,
        md5(d.adbin::text))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN spaces s ON s.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relkind <> 'i' AND c.relkind <> 'I' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT concat_ws(' ', 'k', k.oid, k.conname, k.condeferrable, k.condeferred)
    FROM pg_constraint k JOIN spaces s ON s.oid = k.connamespace
    UNION ALL SELECT concat_ws(' ', 't', t.oid, t.typname, t.typnamespace, t.typowner, t.typnotnull, t.typdefault,
        t.typacl)
    FROM pg_type t JOIN spaces s ON s.oid = t.typnamespace
    UNION ALL SELECT concat_ws(' ', 'q', q.seqrelid, q.seqtypid, q.seqstart, q.seqincrement, q.seqmax, q.seqmin,
        q.seqcycle, q.seqcache)
    FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid JOIN spaces s ON s.oid = c.relnamespace
    UNION ALL SELECT concat_ws(' ', 'h', h.inhrelid, h.inhparent, h.inhseqno)
    FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid JOIN spaces s ON s.oid = c.relnamespace
    WHERE c.relkind <> 'i' AND c.relkind <> 'I'
    UNION ALL SELECT concat_ws(' ', 'g', g.oid, g.tgname, g.tgenabled)
    FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN spaces s ON s.oid = c.relnamespace
    UNION ALL SELECT concat_ws(' ', 'w', w.oid, w.rulename, w.ev_enabled)
    FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class JOIN spaces s ON s.oid = c.relnamespace
) AS parts
"""


class RunsOtherStatements(Exception):  # noqa: N818 - not an error: the revision begins again
    """The revision runs other statements than the interrupted run did, after some were skipped."""

    def __init__(self) -> None:
        super().__init__("the revision runs other statements than the run that was interrupted")


@dataclass
class Progress:
    """The committed part of the running revision, from the comment of one version table.

    ``comment`` is the table's comment, ``may_comment`` is True if the session's role may change it. With ``resumes``
    False, nothing is skipped.
    """

    table: VersionTable
    comment: str | None
    may_comment: bool
    resumes: bool
    _step: Mapping[str, Any] = field(default_factory=dict)
    # Digests of the revision's statements so far. Those up to `_committed` are committed.
    _statements: list[str] = field(default_factory=list)
    _committed: int = 0
    # False if the revision did something in a transaction that cannot be skipped.
    _resumable: bool = True
    _applied: bool = False
    _left: list[str] = field(default_factory=list)
    _left_catalog: str = ""

    def start(self, step: str, heads: Sequence[str]) -> None:
        """Begin a step such as "upgrade ad63c8f0e217" from the revisions that the version table holds."""
        self._step, self._statements, self._committed = {"step": step, "heads": sorted(heads)}, [], 0
        self._resumable, self._applied = True, False
        self._left, self._left_catalog = [], ""
        noted = _split(self.comment)[1]
        if self.resumes and self._step.items() <= noted.items():
            self._left, self._left_catalog = list(noted["statements"]), noted["catalog"]

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

    def ran(self, statement: str, parameters: object) -> None:
        """Note a statement that ran in a transaction."""
        if _SHOWN.match(statement):
            self._statements.append(_digest(statement, parameters))
        else:
            self._resumable = False

    def queried(self, statement: str) -> None:
        """Note a query that ran in a transaction."""
        if _MAY_ACT.search(statement):
            self._resumable = False

    def rolled_back(self) -> None:
        """Forget the statements that were not committed."""
        del self._statements[self._committed :]

    def note(self, connection: sqlalchemy.Connection) -> None:
        """Write the comment, just before a commit that does not write the version."""
        if self._applied or not (self.may_comment and self._resumable) or len(self._statements) > _MOST_STATEMENTS:
            return
        if len(self._statements) > self._committed:
            noted = {**self._step, "statements": self._statements, "catalog": _catalog(connection)}
            own = _split(self.comment)[0]
            self._write(connection, "\n".join(filter(None, [own, f"{_MARK}{json.dumps(noted)}"])))
            self._committed = len(self._statements)

    def clear(self, connection: sqlalchemy.Connection) -> None:
        """Remove the note from the comment, in the transaction that writes the version.

        Raises:
            RunsOtherStatements: the revision did not run all that the interrupted run had committed.
        """
        if self._left and self._statements:
            raise RunsOtherStatements
        self._applied = True
        own, noted = _split(self.comment)
        if noted and self.may_comment:
            self._write(connection, own)

    def _write(self, connection: sqlalchemy.Connection, comment: str | None) -> None:
        schema, name = ('"{}"'.format(part.replace('"', '""')) for part in (self.table.schema, self.table.name))
        text = "NULL" if comment is None else literal(comment)
        statement = f"COMMENT ON TABLE {schema}.{name} IS {text}"
        doubled = statement.replace("%", "%%") if connection.dialect.paramstyle in {"format", "pyformat"} else statement
        connection.exec_driver_sql(doubled)
        self.comment = comment


def _split(comment: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return a table's own comment, and the note after it, empty if there is none."""
    own, mark, text = (comment or "").rpartition(_MARK)
    if mark and (not own or own.endswith("\n")):
        try:
            noted = json.loads(text)
        except ValueError:
            return comment, {}
        if isinstance(noted, dict) and {"step", "heads", "statements", "catalog"} <= noted.keys():
            return own.removesuffix("\n") or None, noted
    return comment, {}


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
