"""Writes the script of a checkpoint, which is pg_dump's output without psql's commands, and runs it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from lambda_migrate.revisions.checkpoint import CURRENT_SETTINGS, HOME, LOGIN, in_session, placed
from localcloud import pg_dump
from migrate_review.errors import ReviewError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from localcloud.postgres import Database
    from migrate_review.checkpoint.server import Databases

_BEGIN = "\n--\n-- Name: "
_END = "\n--\n-- PostgreSQL database dump complete\n--\n"
_OWN_COMMENTS = """
SELECT format('COMMENT ON EXTENSION %I IS NULL', extname) FROM pg_extension x
JOIN pg_available_extensions a ON a.name = x.extname
WHERE obj_description(x.oid, 'pg_extension') IS NOT DISTINCT FROM a.comment
"""


def dump(root: Path, databases: Databases, database: Database, home: str, *, rows: bool = True) -> str:
    """Return a script that sets up an equal database, in any schema and for any login.

    pg_dump writes names with their schemas. Therefore it reads a copy whose home schema has the name that `placed`
    replaces.
    """
    copy = databases.copy(database)
    try:
        with closing(copy.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*map(sql.Identifier, (home, HOME))))
            cursor.execute(f"SELECT obj_description('{HOME}'::regnamespace, 'pg_namespace')")
            if cursor.fetchone() == ("standard public schema",):
                cursor.execute(f"COMMENT ON SCHEMA {HOME} IS NULL")
            # CREATE EXTENSION adds this comment by itself, and only the extension's owner may set it.
            cursor.execute(_OWN_COMMENTS)
            for (statement,) in cursor.fetchall():
                cursor.execute(statement)
        text = pg_dump.dump(root, copy, () if rows else ("--no-data",))
    finally:
        databases.drop(copy)
    begin, end = text.find(_BEGIN), text.rfind(_END)
    body = text[begin + 1 : end].strip() if begin >= 0 else ""
    if database.password in body:
        raise ReviewError("the revisions have written the password of their login into the database")
    return without_schema(body.replace(database.user, LOGIN) + "\n", HOME)


def without_schema(text: str, name: str) -> str:
    """Return a script without the CREATE SCHEMA of this schema, which exists where the script runs."""
    shown = name if name.isidentifier() and name == name.lower() else '"' + name.replace('"', '""') + '"'
    return text.replace(f"Type: SCHEMA; Schema: -; Owner: -\n--\n\nCREATE SCHEMA {shown};\n", "Type: SCHEMA\n--\n", 1)


def restore(database: Database, script: str, session: Mapping[str, Any]) -> None:
    """Run the script as an upgrade does. ``session`` is that of the revisions: its schema and search_path.

    Raises:
        ReviewError: the server refuses it.
    """
    with closing(database.connect()) as opened, opened, opened.cursor() as cursor:
        opened.autocommit = False  # the settings of the script end with its transaction
        if session["role"] != LOGIN:
            cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(session["role"])))
        cursor.execute("SELECT set_config('search_path', %s, false)", (session["search_path"],))
        cursor.execute(f"SELECT {CURRENT_SETTINGS}, quote_ident(current_user), quote_ident(%s)", (session["schema"],))
        [(settings, login, schema)] = cursor.fetchall()
        try:
            for text in in_session(placed(script, schema, login), json.loads(settings)):
                cursor.execute(text)
        except psycopg2.Error as error:
            raise ReviewError(
                f"the checkpoint cannot be restored on PostgreSQL {opened.server_version // 10000}:"
                f" {' '.join(str(error).split())}"
            ) from None
