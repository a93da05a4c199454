"""Finds causes that would delay a migration: sessions that lock its tables, and problems of the whole server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_migrate.database.lock_modes import conflicting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Ask = Callable[..., list[tuple[Any, ...]]]

# CREATE INDEX CONCURRENTLY waits for the writers of its table, and at the end for every older snapshot.
_CONCURRENTLY = "SHARE UPDATE EXCLUSIVE"
_MOST_BLOCKERS = 20

# A session's columns are NULL for a role that may not see them. Such a session counts as a blocker.
_BLOCKERS = """
    WITH wanted AS (
        SELECT to_regclass(name) AS root, name, modes
        FROM unnest(%(names)s::text[], %(modes)s::text[]) AS listed (name, modes)
    ), wanted_relations AS (
        SELECT name, modes, root AS relation FROM wanted WHERE root IS NOT NULL
        UNION
        SELECT name, modes, p.relid FROM wanted, pg_partition_tree(root) AS p WHERE root IS NOT NULL
    ), found AS (
        SELECT DISTINCT ON (l.pid, l.virtualtransaction, w.name)
            a.pid, a.application_name, coalesce(a.xact_start, a.state_change, p.prepared) AS since, w.name, p.gid,
            CASE
                WHEN p.gid IS NOT NULL THEN 'prepared transaction'
                WHEN v.pid IS NOT NULL THEN 'vacuum'
                WHEN i.pid IS NOT NULL THEN 'index build'
                WHEN a.state LIKE 'idle in transaction%%' THEN 'idle in transaction'
                ELSE 'transaction'
            END AS kind,
            -- An autovacuum has no user. It ends when somebody waits for it, unless it prevents wraparound. A table
            -- can lower the ages of the server.
            v.pid IS NULL OR a.usesysid IS NOT NULL
                OR age(c.relfrozenxid) > least(current_setting('autovacuum_freeze_max_age')::int, (
                    SELECT o.option_value::int FROM pg_options_to_table(c.reloptions) AS o
                    WHERE o.option_name = 'autovacuum_freeze_max_age'))
                OR mxid_age(c.relminmxid) > least(current_setting('autovacuum_multixact_freeze_max_age')::int, (
                    SELECT o.option_value::int FROM pg_options_to_table(c.reloptions) AS o
                    WHERE o.option_name = 'autovacuum_multixact_freeze_max_age')) AS stays
        FROM wanted_relations w
        JOIN pg_locks l ON l.relation = w.relation AND l.locktype = 'relation' AND l.granted
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            AND l.mode = ANY (string_to_array(w.modes, ','))
        JOIN pg_class c ON c.oid = w.relation
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        -- A prepared transaction has no session. It is found by the lock on its own id.
        LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.granted
            AND x.virtualtransaction = l.virtualtransaction
        LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
        LEFT JOIN pg_stat_progress_vacuum v ON v.pid = l.pid
        LEFT JOIN pg_stat_progress_create_index i ON i.pid = l.pid
        WHERE l.pid IS NULL OR (a.pid <> pg_backend_pid()
            AND coalesce(coalesce(a.xact_start, a.state_change) < clock_timestamp() - interval '1 second', true))
        UNION ALL
        SELECT a.pid, a.application_name, a.xact_start, w.name, NULL, 'old snapshot', true
        FROM wanted w, pg_stat_activity a
        WHERE w.modes = %(concurrently)s AND w.root IS NOT NULL AND a.datname = current_database()
            AND a.pid <> pg_backend_pid() AND a.backend_xmin IS NOT NULL
            AND a.xact_start < clock_timestamp() - interval '1 second'
            AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)
    )
    SELECT pid, application_name, since::text, name, gid, kind FROM found WHERE stays ORDER BY since, pid, name
"""


def blockers(ask: Ask, locks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the sessions that have blocked the locks of a revision for longer than a moment.

    ``locks`` maps tables to the modes, as the manual spells them. ``ask`` returns the rows of a query.
    """
    wanted = {name: modes for name, mode in locks.items() if (modes := conflicting(mode))}
    if not wanted:
        return []
    rows = ask(
        _BLOCKERS,
        {
            "names": list(wanted),
            "modes": [",".join(modes) for modes in wanted.values()],
            "concurrently": ",".join(conflicting(_CONCURRENTLY)),
        },
    )
    found: dict[tuple[Any, Any, Any], dict[str, Any]] = {}
    for pid, name, since, table, gid, kind in rows:
        shown = name if pid is not None else f"prepared transaction {gid}"
        # A session that holds the table is listed once, with the reason.
        found.setdefault(
            (pid, gid, table),
            {"pid": pid, "application_name": shown, "since": since, "table": table, "kind": kind},
        )
    return list(found.values())[:_MOST_BLOCKERS]


# WAL that waits for a replica or a slot. It fills the disk while a migration writes more of it.
BEHIND_BYTES = 1 << 30
_BEHIND_S = 60
# A share of the lock table that a run should leave to others.
FREE_LOCKS = 0.5

_SLOTS = """
    SELECT slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
    WHERE restart_lsn IS NOT NULL AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > %(bytes)s ORDER BY 3 DESC
"""
_REPLICAS = """
    SELECT application_name, extract(epoch FROM replay_lag)::bigint,
        pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint
    FROM pg_stat_replication
    WHERE replay_lag > %(seconds)s * interval '1 second'
        OR pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) > %(bytes)s ORDER BY 3 DESC
"""
_LOCKS = """
    SELECT current_setting('max_locks_per_transaction')::int
            * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int),
        (SELECT count(*) FROM pg_locks WHERE NOT fastpath),
        (SELECT coalesce(sum(1 + (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid)), 0)::int
         FROM pg_class c
         WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) AS listed (name)
            UNION SELECT p.relid
            FROM unnest(%(names)s::text[]) AS listed (name), pg_partition_tree(to_regclass(name)) AS p)),
        current_setting('max_locks_per_transaction')::int
"""
_ROLE_SETTINGS = """
    SELECT coalesce(d.datname, ''), r.rolname FROM pg_db_role_setting s
    LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
    WHERE (s.setrole = 0 OR r.rolname = session_user) AND (s.setdatabase = 0 OR d.datname = current_database())
        AND EXISTS (SELECT FROM unnest(s.setconfig) AS line WHERE line ~ '^lock_timeout=0[a-z]*$')
"""


def holdups(ask: Ask, tables: Sequence[str]) -> list[dict[str, Any]]:
    """Return the causes that delay or endanger any run on this server, each with its ``kind`` and a ``message``.

    ``tables`` are those that the pending revisions lock.
    """
    limits = {"bytes": BEHIND_BYTES, "seconds": _BEHIND_S}
    found = []
    for name, active, behind in ask(_SLOTS, limits):
        state = "is behind" if active else "is not read"
        found.append(_holdup("replication slot", f"replication slot {name} {state} and keeps {_size(behind)} of WAL"))
    for name, seconds, behind in ask(_REPLICAS, limits):
        lag = f"{seconds} s and {_size(behind or 0)}" if seconds is not None else _size(behind or 0)
        found.append(_holdup("replica", f"replica {name} is behind by {lag}"))
    [(capacity, used, needed, setting)] = ask(_LOCKS, {"names": list(tables)})
    if needed > (capacity - used) * FREE_LOCKS:
        found.append(
            _holdup(
                "lock table",
                f"the pending revisions lock {needed:,} tables and indexes, and the server has room for {capacity:,}"
                f" locks, of which {used:,} are in use: raise max_locks_per_transaction ({setting})",
            )
        )
    for database, role in ask(_ROLE_SETTINGS, {}):
        whose = f"role {role}" if role else "the database"
        where = f" in database {database}" if role and database else ""
        found.append(
            _holdup(
                "lock_timeout",
                f"lock_timeout is set to 0 for {whose}{where}: a session of it that is no migration waits for a lock"
                " without end, and everything waits behind it",
            )
        )
    return found


def _holdup(kind: str, message: str) -> dict[str, Any]:
    return {"kind": kind, "message": message}


def _size(number: float) -> str:
    return f"{number / (1 << 30):.1f} GB"
