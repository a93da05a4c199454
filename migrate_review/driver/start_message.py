"""The first message to the driver: the tree, and the database that env.py must connect to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.credentials import Credentials
from migrate_review.driver.wire import IDENTITY

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg2.extensions import connection

    from lambda_migrate.invocation.settings import Settings
    from localcloud.postgres import Database


def start_message(
    settings: Settings,
    folder: Path,
    database: Database,
    opened: connection,
    timeout_s: float,
    schema: str | None = None,
) -> dict[str, Any]:
    """Return the message, which `program` reads.

    ``folder`` is where the alembic command runs, ``opened`` a connection to the database, and ``timeout_s`` the longest
    time of a command. ``schema`` is the one in which the revisions run; None lets env.py decide.
    """
    credentials = Credentials(
        database.host, database.port, database.name, database.user, database.password, database.sslmode, database.ca
    )
    with opened.cursor() as cursor:
        cursor.execute(IDENTITY)
        [(identity,)] = cursor.fetchall()
    return {
        "config": str(settings.alembic_config),
        "folder": str(folder),
        "driver": settings.driver,
        "url_variables": settings.url_variables,
        "env_variables": dict(settings.env_variables),
        "x_arguments": dict(settings.x_arguments),
        "credentials": {**asdict(credentials), "sslrootcert": str(database.ca)},
        "server": identity,
        "pass_timeout_s": timeout_s,
        "schema": schema,
    }
