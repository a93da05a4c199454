"""Starts the PostgreSQL of reviews, or connects to the user's own, and makes a database for each review."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import parse_dsn

from localcloud import binaries, locks, postgres
from migrate_review.errors import ReviewError
from migrate_review.observation import TIME_ZONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

_PREFIX = "review_"
_ADDRESS = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"

# Longer than any statement on a few hundred rows takes, and shorter than the timeout of a command to the driver.
_STATEMENT_TIMEOUT_S = 45

# Only a revision that waits for its own locks waits this long. The function also sets a lock timeout.
_LOCK_TIMEOUT_S = 15

# Makes PostgreSQL plan for a few hundred rows as for many: it uses an index if there is one, so a sequential scan here
# is also one in production.
_TUPLE_COST = 10

# Before 15, CREATE DATABASE always copies files.
_HAS_STRATEGIES = 150000


@contextmanager
def running(root: Path, version: int = binaries.DEFAULT_VERSION) -> Iterator[postgres.Server]:
    """Yield the PostgreSQL of reviews. Its data stay for the next review, which then needs no initdb.

    Reviews at the same time share it, and the last one stops it.

    Raises:
        LocalCloudError: it could not be started.
    """
    default = version == binaries.DEFAULT_VERSION
    directory = root / ".local" / "review" / ("postgres" if default else f"postgres-{version}")
    in_use = directory.parent / ("in-use.lock" if default else f"in-use-{version}.lock")
    descriptor = locks.share(in_use)
    try:
        server = postgres.start(root, directory, durable=False, version=version)
        _keep_quiet(server)
        yield server
    finally:
        os.close(descriptor)
        _stop_if_unused(in_use, directory)


@contextmanager
def given(root: Path, url: str) -> Iterator[postgres.Server]:
    """Yield a server of the user's own. The review makes its own databases on it, and changes no other.

    Raises:
        ReviewError: the address is invalid, or its role cannot create databases or insert rows without triggers.
    """
    try:
        found = parse_dsn(re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url))
        port = int(found.get("port", 5432))
    except (psycopg2.ProgrammingError, ValueError):
        found, port = {}, 0
    # An @ in the host is part of a password that is not encoded. No message may contain the address or a part of it.
    if not found or "@" in found.get("host", ""):
        raise ReviewError(
            f"--database-url is no address of PostgreSQL: {_ADDRESS}; in a password, write @ as %40, / as %2F and"
            " other special characters likewise"
        )
    missing = [name for name in ("host", "user") if name not in found]
    if missing:
        raise ReviewError(f"--database-url has no {missing[0]}: {_ADDRESS}")
    identity = hashlib.sha256(f"{found['host']} {port}".encode()).hexdigest()[:12]
    server = postgres.Server(
        host=found["host"],
        port=port,
        ca=Path(found.get("sslrootcert", root / ".local" / "review" / "no-ca.crt")),
        user=found["user"],
        password=found.get("password", ""),
        directory=root / ".local" / "review" / f"server-{identity}",
        sslmode=found.get("sslmode", "prefer"),
    )
    _check(server, found.get("dbname", "postgres"))
    yield server


def _check(server: postgres.Server, database: str) -> None:
    where = f"{server.host}:{server.port}"
    try:
        # The review creates and drops its databases over connections to this one.
        with closing(server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            if cursor.fetchone() != (True,):
                raise ReviewError(
                    f"{server.user} may not create databases on {where}; the review makes one of its own beside"
                    f" {database}: ALTER ROLE {server.user} CREATEDB"
                )
            # Rows are inserted without the triggers of the backend.
            cursor.execute("SET session_replication_role = replica")
    except psycopg2.errors.InsufficientPrivilege:
        raise ReviewError(
            f"{server.user} may not set session_replication_role on {where}, so the review cannot insert rows:"
            f" GRANT SET ON PARAMETER session_replication_role TO {server.user} (before PostgreSQL 15, use a superuser)"
        ) from None
    except psycopg2.OperationalError as error:
        raise ReviewError(f"{where} of --database-url does not answer: {' '.join(str(error).split())}") from None


def _keep_quiet(server: postgres.Server) -> None:
    """Turn off autovacuum, which would take locks and change plans between two measurements."""
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT current_setting('autovacuum')")
        if cursor.fetchone() != ("off",):
            cursor.execute("ALTER SYSTEM SET autovacuum = off")
            cursor.execute("SELECT pg_reload_conf()")


def _stop_if_unused(in_use: Path, directory: Path) -> None:
    descriptor = locks.open_lock(in_use)
    try:
        if locks.try_exclusive(descriptor):
            postgres.stop(directory)
    finally:
        os.close(descriptor)


@contextmanager
def database(server: postgres.Server) -> Iterator[postgres.Database]:
    """Yield an empty database. It is dropped at the end, or by the next review if this one is killed."""
    folder = server.directory / "reviews"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{_PREFIX}{secrets.token_hex(6)}"
    lock = folder / f"{name}.lock"
    descriptor = locks.open_lock(lock)
    locks.try_exclusive(descriptor)
    try:
        _drop_abandoned(server, folder)
        with closing(server.connect()) as opened:
            recreate(opened, name)
        yield server.database(name)
    finally:
        drop(server, name)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def drop(server: postgres.Server, name: str) -> None:
    """Drop the database of a review, and the copies that the review keeps of it."""
    with closing(server.connect()) as opened:
        _drop_all(opened, name)


def saved(name: str) -> str:
    """Return the name of the copy that a review may keep of its database."""
    return f"{name}_saved"


def baseline(name: str) -> str:
    """Return the name of the copy that a review may keep of its database before the first revision."""
    return f"{name}_baseline"


def recreate(admin: connection, name: str, template: str = "template0") -> None:
    """Drop the database, and create it again as a copy of the template. This ends all connections to both.

    ``admin`` is connected to another database of the server.
    """
    with admin.cursor() as cursor:
        _drop(admin, name)
        identifier = sql.Identifier(name)
        # Copying files beats logging every page while nothing needs to be on disk.
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (template,))
        strategy = sql.SQL(" STRATEGY file_copy" if admin.server_version >= _HAS_STRATEGIES else "")
        cursor.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}{}").format(identifier, sql.Identifier(template), strategy)
        )
        settings = {
            "statement_timeout": f"{_STATEMENT_TIMEOUT_S}s",
            "lock_timeout": f"{_LOCK_TIMEOUT_S}s",
            "cpu_tuple_cost": str(_TUPLE_COST),
            "TimeZone": TIME_ZONE,
        }
        parts = (
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(identifier, sql.Identifier(setting), sql.Literal(value))
            for setting, value in settings.items()
        )
        cursor.execute(sql.SQL("; ").join(parts))


def _drop(opened: connection, name: str) -> None:
    with opened.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_all(opened: connection, name: str) -> None:
    for each in (name, saved(name), baseline(name)):
        _drop(opened, each)


def _drop_abandoned(server: postgres.Server, folder: Path) -> None:
    """Drop the databases of reviews that were killed. No process holds their lock files."""
    for lock in folder.glob(f"{_PREFIX}*.lock"):
        descriptor = locks.open_lock(lock)
        try:
            if locks.try_exclusive(descriptor):
                drop(server, lock.stem)
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
