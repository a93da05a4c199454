"""The reference backend's revisions, driven through alembic's own command line as its developers do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

BACK = Path(__file__).parents[2] / "back"

SCRIPTS = ScriptDirectory(str(BACK / "alembic"))
REVISIONS = [*SCRIPTS.walk_revisions()][::-1]
ID = {revision.doc: revision.revision for revision in REVISIONS}
BEFORE = {revision.doc: previous.revision for previous, revision in pairwise(REVISIONS)}

# Rows to have in the tables from a revision on. Arriving there again must not add them twice.
ROWS = {
    "Create organizations, users and memberships": """
        INSERT INTO organizations (id, name, plan) VALUES (1, 'Ada & Co.', 'team'), (2, '***', 'free')
        ON CONFLICT DO NOTHING;
        INSERT INTO users (id, email, full_name) VALUES (1, 'Ada@example.com', 'Ada'), (2, 'bob@example.com', 'Bob')
        ON CONFLICT DO NOTHING;
        INSERT INTO memberships (id, organization_id, user_id, role) VALUES (1, 1, 1, 'owner'), (2, 1, 2, 'member')
        ON CONFLICT DO NOTHING
    """,
    "Create items": """
        INSERT INTO items (id, organization_id, created_by_id, name) VALUES (1, 1, 1, 'Kept'), (2, 1, 99, 'Orphaned')
        ON CONFLICT DO NOTHING
    """,
    "Add invitations": """
        INSERT INTO invitations (id, organization_id, invited_by_id, email, token_hash, expires_at)
        VALUES (1, 1, 1, 'eve@example.com', 'token', now() + interval '1 day') ON CONFLICT DO NOTHING
    """,
    "Add subscriptions": """
        INSERT INTO subscriptions (id, organization_id, plan, status, seats)
        VALUES (1, 1, 'team', 'active', 3), (2, 2, 'free', 'canceled', 0) ON CONFLICT DO NOTHING
    """,
    "Add settings to users": """
        UPDATE users SET settings = '{"email_notifications": false, "theme": "dark"}' WHERE id = 1
    """,
    "Let subscriptions be past due": "UPDATE subscriptions SET status = 'past_due' WHERE id = 1",
    "Add notifications table": """
        INSERT INTO notifications (id, user_id, kind) VALUES (1, 1, 'welcome') ON CONFLICT DO NOTHING
    """,
    "Add audit events and API keys": """
        INSERT INTO audit_events (id, organization_id, actor_id, action, ip_address)
        VALUES (1, 1, 1, 'signed_in', '192.0.2.1') ON CONFLICT DO NOTHING;
        INSERT INTO api_keys (id, organization_id, created_by_id, name, key_hash)
        VALUES (1, 1, 1, 'Deployment', 'key') ON CONFLICT DO NOTHING
    """,
    "Add due dates and priorities to items": "UPDATE items SET due_on = '2026-12-01', priority = 2 WHERE id = 1",
}

# All that a revision can leave behind. Columns come by name: one that was dropped and added again comes last.
SCHEMA = """
    SELECT 'relation', relname::text, relkind::text
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'i'
    UNION ALL
    SELECT 'column', attrelid::regclass || '.' || attname, concat_ws(
        ' ', format_type(atttypid, atttypmod), attnotnull, attidentity, pg_get_expr(adbin, adrelid)
    )
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r' AND relnamespace = 'public'::regnamespace
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', indexrelid::regclass::text, concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid)
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid AND relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'enum', enumtypid::regtype::text, string_agg(enumlabel, ', ' ORDER BY enumsortorder)
    FROM pg_enum GROUP BY enumtypid
    UNION ALL
    SELECT 'function', oid::regprocedure::text, prosrc
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1, 2
"""

# Answers each line, a database and arguments, with a line: an interpreter for each command would be most of these
# tests' time. The streams are replaced before alembic is imported, because it keeps the ones it finds then.
ALEMBIC = """
import io, json, os, sys, traceback
answers, sys.stdout, sys.stderr = sys.stdout, io.StringIO(), io.StringIO()
import alembic.config
for line in sys.stdin:
    os.environ["DATABASE_URL"], arguments = json.loads(line)
    failed = False
    try:
        alembic.config.main(argv=arguments)
    except BaseException:
        failed = True
        traceback.print_exc()
    print(json.dumps([failed, sys.stdout.getvalue(), sys.stderr.getvalue()]), file=answers, flush=True)
    for stream in sys.stdout, sys.stderr:
        stream.seek(0)
        stream.truncate()
"""

CREATE_ALL = """
import os
from app.models import Base
from sqlalchemy import create_engine
Base.metadata.create_all(create_engine(os.environ["DATABASE_URL"]))
"""


class Database(Protocol):
    """The part of the fixture `database` that these tests need."""

    url: str

    def connect(self) -> connection: ...


class Alembic:
    """An alembic command line in the backend's folder."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self._url = url

    def __call__(self, *arguments: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([self._url, arguments]) + "\n")
        self._process.stdin.flush()
        failed, out, err = json.loads(self._process.stdout.readline())
        assert not failed, f"alembic {' '.join(arguments)}\n{out}{err}"
        return str(out)


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", ALEMBIC]
    with subprocess.Popen(command, cwd=BACK, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.communicate()


@pytest.fixture
def alembic(process: subprocess.Popen[str], database: Database) -> Alembic:
    return Alembic(process, database.url)


@pytest.fixture
def connected(database: Database) -> Iterator[connection]:
    with closing(database.connect()) as connected:
        yield connected


def execute(connected: connection, *statements: str) -> None:
    with connected.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def fetch(connected: connection, statement: str) -> list[tuple[Any, ...]]:
    with connected.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def schema(connected: connection) -> dict[tuple[str, str], str]:
    rows = fetch(connected, SCHEMA)
    return {(kind, name): text for kind, name, text in rows if not name.startswith("alembic_version")}


def grow(alembic: Alembic, connected: connection) -> None:
    """Upgrade to the head one revision at a time, and insert rows before each next one."""
    for revision in REVISIONS:
        if revision.doc in ROWS:
            alembic("upgrade", revision.revision)
            execute(connected, ROWS[revision.doc])
    alembic("upgrade", "head")


def test_there_is_one_head() -> None:
    assert SCRIPTS.get_heads() == [REVISIONS[-1].revision]


def test_models_and_revisions_agree(database: Database, connected: connection, alembic: Alembic) -> None:
    environment = {**os.environ, "DATABASE_URL": database.url}
    subprocess.run([sys.executable, "-c", CREATE_ALL], cwd=BACK, env=environment, check=True)
    modelled = schema(connected)
    execute(connected, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    alembic("upgrade", "head")

    assert "No new upgrade operations detected" in alembic("check")
    # Alembic does not compare labels of enums, conditions of indexes and defaults.
    assert schema(connected) == modelled


def test_up_down_up_whole_way_with_rows(connected: connection, alembic: Alembic) -> None:
    grow(alembic, connected)
    head = schema(connected)
    assert fetch(connected, "SELECT name, slug FROM organizations ORDER BY id") == [
        ("Ada & Co.", "ada-co-1"),
        ("***", "2"),
    ]
    assert fetch(connected, "SELECT email, display_name FROM users ORDER BY id") == [
        ("Ada@example.com", "Ada"),
        ("bob@example.com", "Bob"),
    ]
    assert fetch(connected, "SELECT name, created_by_id FROM items ORDER BY id") == [("Kept", 1), ("Orphaned", None)]
    assert fetch(connected, "SELECT status, seats FROM subscriptions ORDER BY id") == [("past_due", 3), ("canceled", 1)]

    alembic("downgrade", "base")
    assert schema(connected) == {}

    alembic("upgrade", "head")
    assert schema(connected) == head


@pytest.mark.stress
def test_up_down_up_step_by_step_with_rows(connected: connection, alembic: Alembic) -> None:
    before = schema(connected)
    for revision in REVISIONS:
        alembic("upgrade", revision.revision)
        after = schema(connected)
        execute(connected, ROWS.get(revision.doc, "SELECT"))

        alembic("downgrade", "-1")
        assert schema(connected) == before, f"downgrade of {revision.doc}"

        alembic("upgrade", "+1")
        assert schema(connected) == after, f"second upgrade of {revision.doc}"
        execute(connected, ROWS.get(revision.doc, "SELECT"))
        before = after


def test_offline_sql_does_what_the_revisions_do(
    connected: connection, alembic: Alembic, process: subprocess.Popen[str]
) -> None:
    offline = Alembic(process, "postgresql+psycopg2://nobody@nowhere.invalid/nothing")

    def apply(script: str) -> None:
        execute(connected, *filter(str.strip, script.split(";\n\n")))

    apply(offline("upgrade", "head", "--sql"))
    rendered = schema(connected)
    apply(offline("downgrade", "head:base", "--sql"))
    assert schema(connected) == {}

    alembic("upgrade", "head")
    assert schema(connected) == rendered


@pytest.mark.stress
def test_constraints_and_indexes_at_the_head_are_sound(connected: connection, alembic: Alembic) -> None:
    alembic("upgrade", "head")

    assert fetch(connected, "SELECT conname FROM pg_constraint WHERE NOT convalidated") == []
    assert fetch(connected, "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []

    foreign_keys_without_index = """
        SELECT conname FROM pg_constraint
        WHERE contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index
            WHERE indrelid = conrelid AND indpred IS NULL
            AND (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey
        )
    """
    assert fetch(connected, foreign_keys_without_index) == []

    # An index serves for any leading part of its columns, unless the shorter one makes them unique.
    redundant = """
        SELECT shorter.indexrelid::regclass, longer.indexrelid::regclass
        FROM pg_index AS shorter JOIN pg_index AS longer USING (indrelid)
        JOIN pg_class ON pg_class.oid = indrelid AND relnamespace = 'public'::regnamespace
        WHERE shorter.indexrelid <> longer.indexrelid
        AND starts_with(longer.indkey::text || ' ', shorter.indkey::text || ' ')
        AND pg_get_expr(shorter.indexprs, indrelid) IS NOT DISTINCT FROM pg_get_expr(longer.indexprs, indrelid)
        AND pg_get_expr(shorter.indpred, indrelid) IS NOT DISTINCT FROM pg_get_expr(longer.indpred, indrelid)
        AND (NOT shorter.indisunique OR shorter.indkey = longer.indkey)
    """
    assert fetch(connected, redundant) == []


@pytest.mark.stress
def test_removed_plans_come_back_with_the_downgrade(connected: connection, alembic: Alembic) -> None:
    removal = "Archive the plans of organizations"
    plans = "SELECT name, plan FROM organizations ORDER BY id"
    archive = "SELECT plan FROM archived_organization_plans ORDER BY organization_id"
    add = "INSERT INTO organizations (name, slug, plan) VALUES ('A', 'a', 'team'), ('B', 'b', 'free')"
    alembic("upgrade", BEFORE[removal])
    execute(connected, add)

    alembic("upgrade", ID[removal])
    assert fetch(connected, archive) == [("team",), ("free",)]
    execute(connected, "INSERT INTO organizations (name, slug) VALUES ('Newcomer', 'c')")

    alembic("downgrade", BEFORE[removal])
    assert fetch(connected, plans) == [("A", "team"), ("B", "free"), ("Newcomer", "free")]

    alembic("upgrade", ID[removal])
    assert fetch(connected, archive) == [("team",), ("free",), ("free",)]


def test_renamed_column_keeps_its_values_either_way(connected: connection, alembic: Alembic) -> None:
    first, second, third = "Add display names to users", "Require display names of users", "Drop full names of users"
    alembic("upgrade", BEFORE[first])
    execute(connected, "INSERT INTO users (id, email, full_name) VALUES (1, 'a', 'Ada')")

    alembic("upgrade", ID[first])
    # A server of before, which does not know the new column yet.
    execute(connected, "INSERT INTO users (id, email, full_name) VALUES (2, 'b', 'Bob')")
    alembic("upgrade", ID[second])
    # A server that has come with this revision, and does not know the old one any more.
    execute(connected, "INSERT INTO users (id, email, display_name) VALUES (3, 'c', 'Cem')")
    execute(connected, "UPDATE users SET display_name = 'Ada L.' WHERE id = 1")
    alembic("upgrade", ID[third])
    names = [("Ada L.",), ("Bob",), ("Cem",)]
    assert fetch(connected, "SELECT display_name FROM users ORDER BY id") == names

    alembic("downgrade", ID[second])
    execute(connected, "UPDATE users SET display_name = 'Robert' WHERE id = 2")
    alembic("downgrade", BEFORE[first])
    names = [("Ada L.",), ("Robert",), ("Cem",)]
    assert fetch(connected, "SELECT full_name FROM users ORDER BY id") == names

    alembic("upgrade", ID[third])
    assert fetch(connected, "SELECT display_name FROM users ORDER BY id") == names


def test_settings_are_regrouped_either_way(connected: connection, alembic: Alembic) -> None:
    regrouping = "Group notification settings by channel"
    flat: list[dict[str, Any]] = [
        {"email_notifications": True, "push_notifications": False, "theme": "dark"},
        {"push_notifications": None},
        {"theme": "light"},
        {},
    ]
    grouped: list[dict[str, Any]] = [
        {"notifications": {"email": True, "push": False}, "theme": "dark"},
        {"notifications": {"push": None}},
        {"theme": "light"},
        {},
    ]
    settings = "SELECT settings FROM users ORDER BY id"
    alembic("upgrade", BEFORE[regrouping])
    with connected.cursor() as cursor:
        for number, value in enumerate(flat):
            cursor.execute(
                "INSERT INTO users (email, display_name, settings) VALUES (%s, 'A', %s)",
                (str(number), json.dumps(value)),
            )

    alembic("upgrade", ID[regrouping])
    assert [value for (value,) in fetch(connected, settings)] == grouped
    execute(connected, """UPDATE users SET settings = '{"notifications": {"email": true, "sms": true}}' WHERE id = 4""")

    alembic("downgrade", BEFORE[regrouping])
    # A channel that the servers of before do not know waits where it is.
    later = {"email_notifications": True, "notifications": {"sms": True}}
    assert [value for (value,) in fetch(connected, settings)] == [*flat[:3], later]

    alembic("upgrade", ID[regrouping])
    later = {"notifications": {"email": True, "sms": True}}
    assert [value for (value,) in fetch(connected, settings)] == [*grouped[:3], later]


@pytest.mark.stress
def test_past_due_subscriptions_are_active_ones_to_the_servers_of_before(
    connected: connection, alembic: Alembic
) -> None:
    addition = "Let subscriptions be past due"
    statuses = "SELECT status FROM subscriptions ORDER BY organization_id"
    alembic("upgrade", ID[addition])
    execute(
        connected,
        "INSERT INTO organizations (id, name, slug) VALUES (1, 'A', 'a'), (2, 'B', 'b'), (3, 'C', 'c')",
        "INSERT INTO subscriptions (organization_id, plan, status) VALUES (1, 'team', 'past_due')",
        "INSERT INTO subscriptions (organization_id, plan, status) VALUES (2, 'team', 'canceled')",
    )

    alembic("downgrade", BEFORE[addition])
    execute(connected, "INSERT INTO subscriptions (organization_id, plan) VALUES (3, 'team')")
    assert fetch(connected, statuses) == [("active",), ("canceled",), ("trialing",)]

    alembic("upgrade", ID[addition])
    execute(connected, "UPDATE subscriptions SET status = 'past_due' WHERE organization_id = 1")
    assert fetch(connected, statuses) == [("past_due",), ("canceled",), ("trialing",)]


@pytest.mark.stress
def test_missing_url_is_named() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    ran = subprocess.run(
        [sys.executable, "-m", "alembic", "current"],
        cwd=BACK,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode != 0
    assert "DATABASE_URL is not set" in ran.stderr
