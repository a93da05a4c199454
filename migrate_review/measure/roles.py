"""Drops the roles that revisions create. A role belongs to the server, so it remains when the database is dropped."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localcloud.postgres import Server

_CREATES = re.compile(r"\bCREATE\s+(ROLE|GROUP|USER(?!\s+MAPPING))\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")

_OF_OTHERS = "SELECT rolname FROM pg_roles WHERE oid >= 16384 AND rolname <> current_user"
# Databases of an earlier review in which a role has privileges.
_KEPT_WITH = """
SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::regrole AND starts_with(d.datname, 'kept_')
"""


@dataclass(frozen=True)
class Roles:
    """The roles that a tree's revisions may create: their files contain the name. ``kept`` are never dropped."""

    server: Server
    words: frozenset[str]
    kept: frozenset[str]

    def drop(self) -> None:
        """Drop the roles that exist. A role that another database needs stays."""
        with closing(self.server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(_OF_OTHERS)
            for (name,) in cursor.fetchall():
                if name in self.kept or not self.words.issuperset(_WORD.findall(name)):
                    continue
                role = sql.Identifier(name)
                cursor.execute(_KEPT_WITH, (role.as_string(opened),))
                for (database,) in cursor.fetchall():
                    cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
                with suppress(psycopg2.Error):
                    cursor.execute(sql.SQL("DROP ROLE {}").format(role))


def created_by(texts: Iterable[str], server: Server, kept: frozenset[str]) -> Roles | None:
    """Return the roles that these files may create, or None if they create no role. The ``kept`` roles stay."""
    several = [*texts]
    if not any(_CREATES.search(text) for text in several):
        return None
    return Roles(server, frozenset().union(*(_WORD.findall(text) for text in several)), kept)


def existing(server: Server) -> frozenset[str]:
    """Return the roles of a server, without its own and the session's."""
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(_OF_OTHERS)
        return frozenset(name for (name,) in cursor.fetchall())
