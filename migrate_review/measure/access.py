"""Reads owners and privileges, the next numbers of sequences, and the settings of roles and of the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier
from migrate_review.observation import Access, Numbering

if TYPE_CHECKING:
    from psycopg2.extensions import connection

# NULL privileges mean the defaults of the owner and of PUBLIC.
_ACCESS = """
WITH ours AS MATERIALIZED (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'
), relations AS MATERIALIZED (
    SELECT c.*, (CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END)
        || quote_ident(c.relname) AS shown
    FROM pg_class c JOIN ours n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
), things (name, owner, acl) AS (
    SELECT CASE relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence '
        ELSE 'table ' END || shown, relowner,
        coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner)) FROM relations
    UNION ALL
    SELECT 'column ' || r.shown || '.' || quote_ident(a.attname), NULL, a.attacl
    FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'schema ' || quote_ident(nspname), nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM ours
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace WHERE p.oid >= 16384
    UNION ALL
    SELECT 'type ' || t.oid::regtype, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
    FROM pg_type t JOIN ours n ON n.oid = t.typnamespace WHERE t.oid >= 16384 AND t.typtype IN ('d', 'e', 'r')
    UNION ALL
    SELECT 'the database', datdba, coalesce(datacl, acldefault('d', datdba)) FROM pg_database
    WHERE datname = current_database()
)
SELECT json_build_array(
    (SELECT coalesce(json_object_agg(name, owner::regrole) FILTER (WHERE owner IS NOT NULL), '{}') FROM things),
    (SELECT coalesce(json_agg(json_build_array(name, grantee, privileges)), '[]') FROM (
        SELECT name, CASE each.grantee WHEN 0 THEN 'PUBLIC' ELSE each.grantee::regrole::text END AS grantee,
            json_agg(DISTINCT each.privilege_type) AS privileges
        FROM things, aclexplode(acl) AS each GROUP BY 1, 2) AS granted),
    (SELECT coalesce(json_agg(DISTINCT jsonb_build_array(
        (SELECT shown FROM relations WHERE oid = a.attrelid), a.attname, s.shown, q.seqincrement)), '[]')
     FROM relations s JOIN pg_sequence q ON q.seqrelid = s.oid, LATERAL (
        SELECT d.refobjid AS attrelid, d.refobjsubid AS attnum FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
        UNION
        SELECT f.adrelid, f.adnum FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
        WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid) AS used
     JOIN pg_attribute a USING (attrelid, attnum)
     WHERE s.relkind = 'S' AND q.seqincrement > 0
     AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)),
    (SELECT coalesce(json_agg(json_build_array(
        concat_ws(' in ', 'the role ' || nullif(setrole, 0)::regrole,
            CASE WHEN setdatabase <> 0 THEN 'the database' END), setting)), '[]')
     FROM pg_db_role_setting, unnest(setconfig) AS setting
     WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))),
    (SELECT coalesce(json_object_agg(r.rolname, array_remove(ARRAY[
        CASE WHEN rolcanlogin THEN 'LOGIN' END, CASE WHEN rolinherit THEN 'INHERIT' END,
        CASE WHEN rolbypassrls OR rolsuper THEN 'BYPASSRLS' END,
        CASE WHEN rolconnlimit < 0 THEN 'unlimited connections' END,
        CASE WHEN rolvaliduntil IS NULL OR rolvaliduntil > now() THEN 'its valid password' END
        ] || (SELECT array_agg('the role ' || m.roleid::regrole) FROM pg_auth_members m WHERE m.member = r.oid), NULL)),
        '{}')
     FROM pg_roles r WHERE oid >= 16384)
)::text
"""


def read(opened: connection) -> Access:
    """Return the present owners and privileges, the next numbers of sequences, and the settings."""
    with opened.cursor() as cursor:
        cursor.execute(_ACCESS)
        [(found,)] = cursor.fetchall()
        owners, granted, numbered, settings, roles = json.loads(found)
        numberings = []
        if numbered:
            cursor.execute(
                " UNION ALL ".join(
                    f"SELECT {at}, last_value + CASE WHEN is_called THEN {step} ELSE 0 END,"  # noqa: S608 - quoted names
                    f" (SELECT max({identifier(column)}) FROM {table}) FROM {sequence}"
                    for at, (table, column, sequence, step) in enumerate(numbered)
                )
            )
            for at, coming, highest in cursor.fetchall():
                table, column, sequence, _ = numbered[at]
                numberings.append(Numbering(table, column, sequence, coming, highest))
    privileges = {(name, grantee): frozenset(each) for name, grantee, each in granted}
    own = {name: frozenset(each) for name, each in roles.items()}
    return Access(owners, privileges, tuple(numberings), frozenset((whose, each) for whose, each in settings), own)
