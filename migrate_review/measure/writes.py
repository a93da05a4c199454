"""Tries the writes of the running application after a revision: INSERT, UPDATE and DELETE of a few rows of tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.qualified import identifier, literal
from migrate_review.observation import Write
from migrate_review.rows.contents import text_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from psycopg2.extensions import connection

    from migrate_review.observation import Catalog, Table
    from migrate_review.rows.contents import Contents

# Number of rows to try for each table, and number to try if all of these fail: a constraint may refuse some rows, but
# not all.
_ROWS = 5
_MORE_ROWS = 60
# A trigger may keep the value of one column. If it keeps the values of this many, it undoes the UPDATE.
_COLUMNS = 4

# The description of a write that raises no error and has no effect.
_LOST = "it raises no error, and the row is {}"
_LEFT = {"INSERT": "not there", "UPDATE": "unchanged", "DELETE": "still there"}
# An INSERT that omits a column with a default.
_BY_DEFAULT = "INSERT without a value for {column}"
_NO_DATA = "02000"
# A foreign key or a check.
_VALUE_REFUSED = frozenset({"23503", "23514"})

_FAMILIES = """
WITH RECURSIVE family (oid, heir) AS (
    SELECT inhparent, inhrelid FROM pg_inherits
    UNION SELECT f.oid, i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.heir)
SELECT oid::bigint, array_agg(heir::bigint) FROM family GROUP BY oid
"""

# Executes each attempt, a list of statements, and rolls it back. Returns the failures, the number of rows of each table
# that an attempt read by sequential scans, and the change of the result of the attempt's counting query.
_TRY = """
DO $review$
DECLARE
    attempt record; piece text; found jsonb := '[]'; state text; message text; context text; was jsonb; now jsonb;
    counting text; had bigint; has bigint;
BEGIN
    FOR attempt IN
        SELECT value FROM jsonb_array_elements(current_setting('review.attempts')::jsonb) WITH ORDINALITY AS e(value, n)
        ORDER BY n
    LOOP
        BEGIN
            had := NULL;
            has := NULL;
            counting := attempt.value ->> 'count';
            FOR piece IN SELECT jsonb_array_elements_text(attempt.value -> 'before') LOOP
                EXECUTE piece;
            END LOOP;
            IF counting IS NOT NULL THEN
                EXECUTE counting INTO had;
            END IF;
            SELECT jsonb_object_agg(oid, pg_stat_get_xact_tuples_returned(oid)) INTO was
            FROM unnest(current_setting('review.tables')::oid[]) AS oid;
            EXECUTE attempt.value ->> 'write';
            SET CONSTRAINTS ALL IMMEDIATE;
            SELECT jsonb_object_agg(oid, pg_stat_get_xact_tuples_returned(oid)) INTO now
            FROM unnest(current_setting('review.tables')::oid[]) AS oid;
            IF counting IS NOT NULL THEN
                EXECUTE counting INTO has;
            END IF;
            RAISE EXCEPTION USING ERRCODE = 'RV000';
        EXCEPTION
            WHEN SQLSTATE 'RV000' THEN
                found := found || jsonb_build_array(jsonb_build_object('was', was, 'now', now, 'more', has - had));
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS
                    state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
                found := found || jsonb_build_array(
                    jsonb_build_object('state', state, 'message', message, 'context', context));
        END;
    END LOOP;
    PERFORM set_config('review.found', found::text, true);
END $review$
"""


@dataclass(frozen=True)
class Trial:
    """Tries writes on a database that has the schema ``after``.

    ``before`` is the schema that the application knows, ``data`` its rows, and ``rows`` their number.
    """

    opened: connection
    before: Catalog
    after: Catalog
    data: Mapping[str, Contents]
    rows: Mapping[str, int]

    def changed_writes(self, only: Container[str] | None = None) -> tuple[Write, ...]:
        """Return the writes that fail for every row that is tried, and the writes that read whole tables.

        ``only`` limits the tables. Without it, all tables are tried that the schema difference may affect.

        The writes use the new names of renamed columns, and omit dropped columns: the schema shows both.
        """
        if only is None:
            tables = list(_affected(self.before, self.after))
        else:
            tables = [table for table in self.before.tables if table.name in only]
        found = self._tried(tables, _ROWS)
        failing = {write.table for write in found if write.failure is not None}
        more = self._tried([table for table in tables if table.name in failing], _MORE_ROWS)
        unchanged = {write.table for write in more if _changes_nothing(write)}
        # A trigger may suppress an UPDATE that changes no value, as `suppress_redundant_updates_trigger` does.
        changing = self._tried([table for table in tables if table.name in unchanged], _MORE_ROWS, new_values=True)
        lost = {write.table for write in changing if _changes_nothing(write)}
        # A trigger with RETURN OLD writes the old row.
        triggered = [table for table in tables if table.name not in failing and self._has_trigger(table)]
        undone = (write for write in self._tried(triggered, _ROWS, new_values=True) if _changes_nothing(write))
        working = (write for write in found if write.failure is None)
        failed = (write for write in more if write.failure is not None and not self._has_deleted_values(write))
        return (*working, *undone, *(each for each in failed if not _changes_nothing(each) or each.table in lost))

    def _has_deleted_values(self, write: Write) -> bool:
        """Return whether the revision deleted all rows of a table and added a constraint that refuses their values.

        The application need not write these values.
        """
        if write.function or write.sqlstate not in _VALUE_REFUSED or not write.kind.startswith("INSERT"):
            return False
        was = self.before.table_named(write.table)
        now = self.after.table(was.oid) if was is not None else None
        if now is None:
            return False
        with self.opened.cursor() as cursor:
            cursor.execute(f"SELECT NOT EXISTS (SELECT FROM {now.name})")  # noqa: S608 - a quoted name
            [(is_empty,)] = cursor.fetchall()
        return bool(is_empty)

    def _has_trigger(self, table: Table) -> bool:
        now = self.after.table(table.oid)
        end = f" on {now.name if now is not None else table.name}"
        return any(name.startswith("trigger ") and name.endswith(end) for name in self.after.others)

    def _tried(self, tables: Sequence[Table], most: int, *, new_values: bool = False) -> tuple[Write, ...]:
        """Return the results that all tried rows of a table have in common."""
        tried = [
            (table, kind, attempt)
            for table in tables
            for kind, attempt in _attempts(table, self.after, self.data.get(table.name), most, new_values=new_values)
        ]
        families = self._families() if tried else {}
        outcomes: dict[tuple[str, str], list[Write]] = {}
        for (table, kind, _), each in zip(tried, self._ran([attempt for *_, attempt in tried]), strict=True):
            outcomes.setdefault((table.name, kind), []).append(
                self._outcome(table.name, kind, each, families.get(table.oid, frozenset()))
            )
        return tuple(write for several in outcomes.values() for write in _concluded(several))

    def _ran(self, attempts: Sequence[_Attempt]) -> list[dict[str, Any]]:
        """Execute each attempt and undo it. Return the result of each."""
        if not attempts:
            return []
        oids = ",".join(str(table.oid) for table in self.before.tables if self.after.table(table.oid) is not None)
        with self.opened.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                cursor.execute(
                    "SELECT set_config('review.attempts', %s, true), set_config('review.tables', %s, true)",
                    (json.dumps([asdict(each) for each in attempts]), f"{{{oids}}}"),
                )
                cursor.execute(_TRY)
                cursor.execute("SELECT current_setting('review.found')")
                [(found,)] = cursor.fetchall()
            finally:
                cursor.execute("ROLLBACK")
        ran: list[dict[str, Any]] = json.loads(found)
        return ran

    def _families(self) -> dict[int, frozenset[int]]:
        """Return the tables that inherit from each table. A write to that table reads them, too."""
        with self.opened.cursor() as cursor:
            cursor.execute(_FAMILIES)
            return {oid: frozenset(heirs) for oid, heirs in cursor.fetchall()}

    def _outcome(self, table: str, kind: str, found: Mapping[str, Any], heirs: Container[int]) -> Write:
        if "state" in found:
            own = [line for line in (found["context"] or "").splitlines() if line.startswith(("PL/", "SQL function"))]
            in_function = any("inline_code_block" not in line for line in own)
            message = " ".join(found["message"].split())
            return Write(table, kind, f"{message} (SQLSTATE {found['state']})", found["state"], in_function)
        if found["more"] == 0:
            return Write(table, kind, _LOST.format(_LEFT[kind.partition(" ")[0]]), _NO_DATA)
        if kind == "DELETE":
            return Write(table, kind)  # another rule covers the reads of a foreign key without an index
        names = {each.oid: each.name for each in self.before.tables}
        was, now = found["was"] or {}, found["now"] or {}
        counts = {names[int(oid)]: count - was.get(oid, 0) for oid, count in now.items() if int(oid) not in heirs}
        reads = {
            name: count
            for name, count in counts.items()
            # An UPDATE looks for its own row, perhaps without an index: the table has few rows here.
            if (name != table or kind.startswith("INSERT")) and self.rows.get(name) and count >= self.rows[name] / 2
        }
        return Write(table, kind, reads=reads)


def _changes_nothing(write: Write) -> bool:
    return write.kind == "UPDATE" and write.sqlstate == _NO_DATA


def _concluded(several: Sequence[Write]) -> Iterator[Write]:
    """Yield the result that all attempts have in common: a failure, or tables of which they read all rows."""
    if all(write.failure is not None for write in several):
        yield next((write for write in several if write.sqlstate != _NO_DATA), several[0])
        return
    worked = [write for write in several if write.failure is None]
    common = {table: count for table, count in worked[0].reads.items() if all(table in write.reads for write in worked)}
    if common:
        yield replace(worked[0], reads=common)


def _affected(before: Catalog, after: Catalog) -> Iterator[Table]:
    """Yield the old tables whose writes may behave differently. A changed function may affect any table."""
    changed = {
        name for name in before.others.keys() | after.others.keys() if before.others.get(name) != after.others.get(name)
    }
    # Old objects do not use new ones.
    anywhere = any(before.enums[name] != after.enums.get(name) for name in before.enums) or any(
        name.startswith(("function ", "procedure ", "domain ", "type ", "view ", "materialized view ", "sequence "))
        for name in changed & before.others.keys()
    )
    # An UPDATE of a table without a replica identity fails if a publication has the table.
    anywhere = anywhere or any(name.startswith("publication ") for name in changed)
    anywhere = anywhere or any(after.table_named(table.name) is None for table in before.tables)
    for was in before.tables:
        now = after.table(was.oid)
        if now is not None and (
            anywhere
            or now != was
            or any(name.endswith(f" on {each}") for each in {was.name, now.name} for name in changed)
        ):
            yield was


@dataclass(frozen=True)
class _Attempt:
    """A write, the statements before it, and a query for a number that the write must change."""

    write: str
    before: Sequence[str] = ()
    count: str | None = None


def _attempts(
    was: Table, after: Catalog, data: Contents | None, most: int, *, new_values: bool
) -> Iterator[tuple[str, _Attempt]]:
    """Yield an INSERT, an UPDATE and a DELETE for some rows of a table. The UPDATE sets a column to its own value.

    With ``new_values``, yield only UPDATEs, of several columns, each to the value of another row.
    """
    now = after.table(was.oid)
    if now is None or data is None or not data.rows:
        return
    places = sorted({round(at * (len(data.rows) - 1) / (most - 1)) for at in range(most)})
    is_now = {column.number: column for column in now.columns}
    # The rows may have been read before a column got its new name.
    names = {
        column.name: is_now[column.number]
        for column in was.columns
        if column.number in is_now and column.name in data.columns
    }
    key = next((index.columns for index in was.indexes if index.unique and not index.partial and index.columns), ())
    for position in places:
        row = dict(zip(data.columns, data.rows[position], strict=True))
        where = " AND ".join(f"{identifier(names[each].name)} = {_literal(row[each])}" for each in key if each in names)
        if not where:
            at = f"(SELECT ctid FROM {now.name} OFFSET {position} LIMIT 1)"  # noqa: S608 - quoted names
            where = f"tableoid = '{now.name}'::regclass AND ctid = {at}"
        # The application does not write columns that a sequence or an expression fills.
        counted = {
            column.name
            for column in was.columns
            if column.generated or column.identity or (column.default or "").startswith("nextval(")
        }
        given = {name: column for name, column in names.items() if name not in counted and not column.generated}
        if given and not new_values:
            yield "INSERT", _insert(now.name, given, row, where)
            for each, column in given.items():
                rest = {name: column for name, column in given.items() if name != each}
                if column.default is not None and rest:
                    yield _BY_DEFAULT.format(column=each), _insert(now.name, rest, row, where)
        settable = [name for name in given if name not in key] or [*given]
        # The row's position in the file. An UPDATE changes it, and so does a trigger that marks a row as deleted.
        place_of = "(ctid::text::point)[0]::bigint * 65536 + (ctid::text::point)[1]::bigint"
        kept = f"SELECT {place_of} FROM {now.name} WHERE {where}"  # noqa: S608 - quoted names
        if new_values:
            for name in [each for each in settable if _another(data, each, position) is not None][:_COLUMNS]:
                one, value = identifier(given[name].name), _literal(_another(data, name, position) or "")
                was_so = f"{one}::text IS NOT DISTINCT FROM CAST({_literal(row[name])} AS {given[name].type})::text"
                same = f"SELECT count(*) FROM {now.name} WHERE {was_so}"  # noqa: S608 - quoted names
                yield "UPDATE", _Attempt(f"UPDATE {now.name} SET {one} = {value} WHERE {where}", count=same)  # noqa: S608 - quoted names
            continue
        if settable:
            one = identifier(given[settable[0]].name)
            yield "UPDATE", _Attempt(f"UPDATE {now.name} SET {one} = {one} WHERE {where}", count=kept)  # noqa: S608 - quoted names
        yield "DELETE", _Attempt(f"DELETE FROM {now.name} WHERE {where}", count=kept)  # noqa: S608 - quoted names


def _another(data: Contents, column: str, position: int) -> str | None:
    """Return a value of a column that differs from the row's value, or None if all rows have the same value."""
    at = data.columns.index(column)
    return next((row[at] for row in data.rows if row[at] != data.rows[position][at]), None)


def _insert(table: str, given: Mapping[str, Any], row: Mapping[str, str], where: str) -> _Attempt:
    """Return an attempt that deletes a row and inserts it again."""
    columns = ", ".join(identifier(column.name) for column in given.values())
    values = ", ".join(_literal(row[name]) for name in given)
    before = (
        # This DELETE fires no trigger and does not check foreign keys to the row.
        "SELECT set_config('session_replication_role', 'replica', true)",
        f"DELETE FROM {table} WHERE {where}",  # noqa: S608 - quoted names
        "SELECT set_config('session_replication_role', 'origin', true)",
    )
    insert = f"INSERT INTO {table} ({columns}) VALUES ({values})"  # noqa: S608 - quoted names
    return _Attempt(insert, before, f"SELECT count(*) FROM {table}")  # noqa: S608 - quoted names


def _literal(value: str) -> str:
    """Return a value from COPY as an SQL literal."""
    text = text_of(value)
    return "NULL" if text is None else literal(text)
