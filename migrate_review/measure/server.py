"""Starts the PostgreSQL of reviews, and makes a database for each review."""

from __future__ import annotations

import os
import secrets
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from psycopg2 import sql

from localcloud import locks, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg2.extensions import connection

_PREFIX = "review_"

# Longer than any statement on a few hundred rows takes, shorter than the time that a whole pass has.
_STATEMENT_TIMEOUT_S = 45

# A few hundred rows are planned as if they were many: what has an index is looked up in it, and a scan is a scan of
# production too.
_TUPLE_COST = 10


@contextmanager
def running(root: Path) -> Iterator[postgres.Server]:
    """Yield the PostgreSQL of reviews. Its data stay for the next review, which then needs no initdb.

    Reviews at the same time share it, and the last one stops it.

    Raises:
        LocalCloudError: it could not be started.
    """
    directory = root / ".local" / "review" / "postgres"
    in_use = directory.parent / "in-use.lock"
    descriptor = locks.share(in_use)
    try:
        server = postgres.start(root, directory, durable=False)
        _keep_quiet(server)
        yield server
    finally:
        os.close(descriptor)
        _stop_if_unused(in_use, directory)


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
        make_anew(server, name)
        yield server.database(name)
    finally:
        with closing(server.connect()) as opened:
            _drop_all(opened, name)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def saved(name: str) -> str:
    """Return the name of the copy that a review may keep of its database."""
    return f"{name}_saved"


def make_anew(server: postgres.Server, name: str, template: str = "template0") -> None:
    """Drop and create the database as a copy of the template. Connections to both are ended."""
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        _drop(opened, name)
        identifier = sql.Identifier(name)
        # Copying files beats logging every page while nothing needs to be on disk.
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (template,))
        cursor.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(identifier, sql.Identifier(template))
        )
        settings = {"statement_timeout": f"{_STATEMENT_TIMEOUT_S}s", "cpu_tuple_cost": str(_TUPLE_COST)}
        for setting, value in settings.items():
            cursor.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(identifier, sql.Identifier(setting), sql.Literal(value))
            )


def _drop(opened: connection, name: str) -> None:
    with opened.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_all(opened: connection, name: str) -> None:
    for each in (name, saved(name)):
        _drop(opened, each)


def _drop_abandoned(server: postgres.Server, folder: Path) -> None:
    """Drop the databases of reviews that were killed. Nothing locks their lock files any more."""
    for lock in folder.glob(f"{_PREFIX}*.lock"):
        descriptor = locks.open_lock(lock)
        try:
            if locks.try_exclusive(descriptor):
                with closing(server.connect()) as opened:
                    _drop_all(opened, lock.stem)
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
