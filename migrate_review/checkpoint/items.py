"""Finds items that a checkpoint cannot contain, or only with its author's consent."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lambda_migrate.revisions.checkpoint import LOGIN
from localcloud.postgres import SUPERUSER
from migrate_review.checkpoint.state import tables_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from localcloud.postgres import Database
    from migrate_review.checkpoint.replaying import Replayed
    from migrate_review.checkpoint.state import State


@dataclass(frozen=True)
class Item:
    """One item that cannot be in a checkpoint. ``name`` is its name for ``--allow``, such as ``rows:users``."""

    name: str
    why: str

    def is_named_by(self, patterns: Iterable[str]) -> bool:
        """Return whether ``--allow`` names it: by its name, a shell-style pattern, its kind alone or its own part."""
        kind, _, part = self.name.partition(":")
        names = (self.name, part, kind, f"{kind}s")
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


_OUTSIDE = f"""
SELECT 'schema:' || nspname, 'a schema other than env.py''s own: an upgrade uses the checkpoint only where this schema'
    || ' does not exist'
FROM pg_namespace n WHERE nspname <> 'information_schema' AND nspname !~ '^pg_' AND nspname <> ALL (%(homes)s)
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_namespace'::regclass AND objid = n.oid AND deptype = 'e')
AND (nspname <> 'public' OR EXISTS (SELECT FROM pg_depend d
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.deptype = 'n'
    AND d.classid <> 'pg_extension'::regclass AND NOT EXISTS (
        SELECT FROM pg_depend e WHERE (e.classid, e.objid) = (d.classid, d.objid) AND e.deptype = 'e')))
UNION ALL SELECT 'role:' || rolname, 'a role belongs to the server, so it must exist before the checkpoint is used'
FROM pg_roles WHERE rolname !~ '^pg_' AND rolname NOT IN ('{SUPERUSER}', '{LOGIN}') AND rolname <> ALL (%(premade)s)
UNION ALL SELECT 'role-attributes:' || rolname, 'the attributes of a role belong to the server' FROM pg_authid
WHERE rolname = ANY (%(premade)s) AND (rolpassword IS NOT NULL OR rolvaliduntil IS NOT NULL OR NOT rolinherit
    OR rolconnlimit <> -1 OR rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication OR rolbypassrls)
UNION ALL SELECT DISTINCT 'role-member:' || pg_get_userbyid(member), 'the memberships of a role belong to the server'
FROM pg_auth_members WHERE pg_get_userbyid(member) !~ '^pg_'
UNION ALL SELECT 'parameter:' || parname, 'privileges on a parameter belong to the server' FROM pg_parameter_acl
UNION ALL SELECT 'database:' || name, 'it belongs to the database, which exists before the checkpoint is used'
FROM pg_database, LATERAL (VALUES
    ('privileges', datacl IS NOT NULL),
    ('owner', pg_get_userbyid(datdba) <> '{LOGIN}'),
    ('connection-limit', datconnlimit <> -1),
    ('comment', shobj_description(oid, 'pg_database') IS NOT NULL)
) AS changed (name, is_changed) WHERE datname = current_database() AND is_changed
UNION ALL SELECT 'large-objects', 'large objects are not in a checkpoint'
    WHERE EXISTS (SELECT FROM pg_largeobject_metadata)
UNION ALL SELECT 'publication:' || pubname, 'publications are not in a checkpoint' FROM pg_publication
UNION ALL SELECT 'subscription:' || subname, 'subscriptions are not in a checkpoint' FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL SELECT 'event-trigger:' || evtname, 'event triggers belong to the whole database' FROM pg_event_trigger
    WHERE NOT EXISTS (SELECT FROM pg_depend
        WHERE classid = 'pg_event_trigger'::regclass AND objid = pg_event_trigger.oid AND deptype = 'e')
UNION ALL SELECT 'server:' || srvname, 'foreign servers belong to the whole database' FROM pg_foreign_server
UNION ALL SELECT 'user-mapping:' || srvname, 'its options may hold a password, which would be in the file'
    FROM pg_user_mappings WHERE umid IS NOT NULL
UNION ALL SELECT 'setting:' || split_part(setting, '=', 1), 'settings of a database or a role are not in a checkpoint'
    FROM pg_db_role_setting, unnest(setconfig) AS setting
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND NOT (setdatabase <> 0 AND setrole <> 0 AND setting ILIKE 'timezone=%%')
UNION ALL SELECT DISTINCT 'owner:' || pg_get_userbyid(refobjid), 'objects belong to it, and not to the role that'
    || ' env.py acts as' FROM pg_shdepend
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND deptype = 'o'
    AND pg_get_userbyid(refobjid) <> %(role)s
ORDER BY 1
"""  # noqa: S608 - names of ours

# The roles that privileges, policies and owners name.
_ROLES = f"""
SELECT DISTINCT pg_get_userbyid(refobjid)::text FROM pg_shdepend
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
AND refclassid = 'pg_authid'::regclass AND deptype IN ('a', 'r', 'o', 'i')
AND pg_get_userbyid(refobjid) NOT IN ('{SUPERUSER}', '{LOGIN}') ORDER BY 1
"""  # noqa: S608 - as above
_EXTENSIONS = """
SELECT extname::text, CASE nspname WHEN %s THEN '' ELSE nspname::text END
FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname <> 'plpgsql' ORDER BY 1
"""


def outside(database: Database, replayed: Replayed, premade: Collection[str]) -> list[Item]:
    """Return what the revisions have changed outside the schema. ``premade`` are roles that existed before them."""
    homes = [replayed.home, *(table.schema for table in replayed.tables if table.schema)]
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(_OUTSIDE, {"homes": homes, "role": replayed.role, "premade": [*premade]})
        found = [Item(name, why) for name, why in cursor.fetchall()]
    return found + [
        Item(f"session:{name}", "revisions change it in their session, and later revisions may rely on that")
        for name in replayed.left_in_session()
    ]


def of_rows(states: Sequence[State], database: Database, home: str, began: dt.datetime) -> Iterator[Item]:
    """Yield the tables whose rows depend on the time or on random values.

    ``states`` are the results of replays at different times or on different servers. Equal rows may still depend on the
    day or the month, so a table with a date of the present month counts, too.
    """
    first, *others = states
    differing: dict[str, tuple[str, ...]] = {}
    for other in others:
        differing |= first.differing_rows(other)
    for table, columns in differing.items():
        where = f"its values in {', '.join(columns)} are" if columns else "its number of rows is"
        yield Item(f"rows:{table}", f"{where} different in each replay of the revisions")
    months = {f"{moment:%Y-%m-}" for moment in (began, dt.datetime.now(dt.timezone.utc))}
    for table in tables_with(database, home, months):
        if table not in differing:
            yield Item(f"rows:{table}", "a row contains a date of this month, so its value may depend on the time")


def roles(database: Database) -> tuple[str, ...]:
    """Return the roles that must exist before the database can be restored."""
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(_ROLES)
        return tuple(name for (name,) in cursor.fetchall())


def extensions(database: Database, home: str) -> dict[str, str]:
    """Return the schema of each extension, empty for the home schema."""
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(_EXTENSIONS, (home,))
        return dict(cursor.fetchall())
