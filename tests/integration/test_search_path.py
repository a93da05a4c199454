"""No code of another role runs with the rights of the function's login, even if that role may create objects."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.common import LOCK_CLASS
from tests.support.bystander import administer, execute, query
from tests.support.planted import calls, calls_of_ours, plant
from tests.support.samples import sampled_by_name
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

ABC = [Rev(name, sql(f"CREATE TABLE {name} (id int)"), sql(f"DROP TABLE {name}")) for name in ("a1", "b2", "c3")]
# Each is a statement that the function looks at, because an interrupted run may have run it.
OUTSIDE_A_TRANSACTION = Rev(
    "d4",
    "with op.get_context().autocommit_block():\n"
    + "".join(
        f"    op.execute({statement!r})\n"
        for statement in (
            "CREATE INDEX CONCURRENTLY ix ON a1 (id)",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON a1 (id)",
            "CREATE INDEX CONCURRENTLY ON a1 (id)",
            "CREATE INDEX CONCURRENTLY ON a1 (id)",
            "REINDEX INDEX CONCURRENTLY ix",
            "REINDEX TABLE CONCURRENTLY a1",
            "REINDEX SCHEMA CONCURRENTLY public",
            "DROP INDEX CONCURRENTLY ix",
            "CREATE TYPE mood AS ENUM ('good')",
            "ALTER TYPE mood ADD VALUE 'bad' AFTER 'good'",
            "ALTER TYPE mood RENAME VALUE 'bad' TO 'worse'",
            "CREATE TABLE parts (id int) PARTITION BY RANGE (id)",
            "CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (1)",
            "ALTER TABLE parts DETACH PARTITION part CONCURRENTLY",
        )
    ),
)
# PostgreSQL 14 and later detach a partition concurrently.
NEW_ENOUGH = 140000
ONLY_NEW = "    op.execute('ALTER TABLE parts DETACH PARTITION part CONCURRENTLY')\n"
# It counts with a sequence, which a look gives its number back.
COUNTS = ENV_PY.replace(
    "    with connectable.connect() as connection:\n",
    "    with connectable.connect() as connection:\n"
    "        connection.exec_driver_sql('CREATE TABLE IF NOT EXISTS counted (id serial)')\n"
    "        connection.exec_driver_sql('INSERT INTO counted DEFAULT VALUES'); connection.commit()\n",
)
# A check compares models with the database. SQLAlchemy's statements find the planted functions ambiguous.
COUNTS = COUNTS.replace("target_metadata = None", "target_metadata = __import__('sqlalchemy').MetaData()")

# Of c3, as the reviewer records it: a plan looks at the table, and a stamp that verifies reads the schema.
RECORDED = {
    "c3": {
        "sha256": "",
        "findings": [],
        "measured": {
            "tables": [
                {
                    "table": "a1",
                    "lock": "SHARE UPDATE EXCLUSIVE",
                    "blocks": "nothing",
                    "reads_all": True,
                    "rewrites": False,
                    "while_locked": {"reads": ["a1"], "rewrites": []},
                }
            ],
            "checks": [
                {
                    "check": kind,
                    "table": "a1",
                    "columns": ["id"],
                    "name": None,
                    "query": query,
                    "changed_before": False,
                }
                for kind, query in (
                    ("not_null", "SELECT * FROM a1 WHERE id IS NULL"),
                    ("unique", "SELECT id, count(*) FROM a1 GROUP BY id HAVING count(*) > 1"),
                    (
                        "foreign_key",
                        "SELECT here.* FROM a1 AS here WHERE NOT EXISTS (SELECT FROM a1 AS x WHERE x.id = here.id)",
                    ),
                    ("check", "SELECT * FROM a1 WHERE NOT (id::int8 = id AND id::text || '' <> '')"),
                    ("type", "SELECT * FROM a1 WHERE char_length(rtrim(id::text)) > 3"),
                )
            ],
            "changes": [],
            "schema": {"changed": {}, "after": ""},
        },
    }
}


@dataclass(frozen=True)
class Attack:
    """A role that may create in a schema of the login's search_path, and the statements that allow it."""

    grant: str
    owns_database: bool = False
    path: str | None = None


ATTACKS = {
    # Every role may on PostgreSQL 13 and 14.
    "PUBLIC creates in public": Attack("GRANT CREATE ON SCHEMA public TO PUBLIC"),
    "creates in public": Attack('GRANT CREATE ON SCHEMA public TO "{attacker}"'),
    "owns the schema": Attack('ALTER SCHEMA public OWNER TO "{attacker}"'),
    "owns the database": Attack("SELECT", owns_database=True),
    "sets the search_path": Attack("SELECT", owns_database=True, path="public, pg_catalog"),
}


@pytest.fixture
def strong(postgres_server: Server, database: Database) -> Iterator[Database]:
    """The database, as its own superuser sees it."""
    name = f"{database.name}_strong"
    administer(postgres_server, f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD 'pw-{name}'")
    administer(postgres_server, f"ALTER DATABASE {database.name} OWNER TO {name}")
    yield postgres_server.database(database.name, name, f"pw-{name}")
    administer(postgres_server, f'ALTER DATABASE {database.name} OWNER TO "{database.user}"')
    execute(postgres_server.database(database.name), f"REASSIGN OWNED BY {name} TO postgres")
    administer(postgres_server, f"DROP ROLE {name}")


def begin(server: Server, database: Database, attack: Attack) -> None:
    """Give the weak role of the fixture ``database`` the attack's permissions, and plant its objects."""
    whole = server.database(database.name)
    if attack.owns_database:
        administer(server, f'ALTER DATABASE {database.name} OWNER TO "{database.user}"')
    execute(
        whole,
        f'GRANT CONNECT ON DATABASE {database.name} TO "{database.user}"',
        attack.grant.format(attacker=database.user),
    )
    plant(whole, "public", database.user)
    if attack.path:
        execute(database, f"ALTER DATABASE {database.name} SET search_path = {attack.path}")


@pytest.mark.stress
@pytest.mark.parametrize("attack", sampled_by_name(ATTACKS, {"sets the search_path"}))
def test_nothing_planted_is_called_where_nothing_is_to_be_done(
    runner: Runner,
    postgres_server: Server,
    database: Database,
    strong: Database,
    put_secret: Callable[[object], str],
    tmp_path: Path,
    attack: Attack,
) -> None:
    function = runner.start(
        write_tree(tmp_path / "tree", ABC), DB_SECRET_ID=put_secret(strong.secret), UNTRUSTED_SCHEMA="ignore"
    )
    assert function.invoke().error_type is None
    begin(postgres_server, database, attack)

    with closing(strong.connect()) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_advisory_lock(%s, 0)", (LOCK_CLASS,))
        answers = [function.invoke({"action": "status"})]
    answers += [function.invoke({"action": action}) for action in ("upgrade", "plan")]

    assert answers[0].error_type is None
    assert calls_of_ours(postgres_server, database) == []


@pytest.mark.parametrize("attack", sampled_by_name(ATTACKS, {"creates in public"}))
def test_no_statement_of_ours_calls_planted_objects_in_the_session_of_env_py(
    runner: Runner,
    postgres_server: Server,
    database: Database,
    strong: Database,
    put_secret: Callable[[object], str],
    tmp_path: Path,
    attack: Attack,
) -> None:
    last = OUTSIDE_A_TRANSACTION
    with closing(strong.connect()) as opened:
        if opened.server_version < NEW_ENOUGH:
            last = replace(last, upgrade=last.upgrade.replace(ONLY_NEW, ""))
    tree = write_tree(tmp_path / "tree", [*ABC, last], env_py=COUNTS)
    (tree / "alembic" / "reviewed.json").write_text(json.dumps({"version": 2, "revisions": RECORDED}))
    function = runner.start(
        tree,
        DB_SECRET_ID=put_secret(strong.secret),
        UNTRUSTED_SCHEMA="ignore",
        ALLOW_DOWNGRADE="true",
    )
    begin(postgres_server, database, attack)

    expected = {"check": "ConfigurationError", "stamp": "DriftDetected"}
    for event in (
        {"action": "status"},
        {"action": "upgrade", "revision": "+2"},
        {"action": "plan"},
        {"action": "downgrade", "revision": "-1", "confirm": "b2"},
        {"action": "upgrade"},
        {"action": "doctor"},
        {"action": "upgrade", "target": {"schema": "public"}},
        {"action": "check"},
        {"action": "stamp", "revision": "c3", "verify": True},
    ):
        answer = function.invoke(event)
        # What is before pg_catalog misleads Alembic's own statements, too.
        assert answer.error_type == expected.get(str(event["action"])) or attack.path is not None, answer.message
        if event["action"] == "plan" and attack.path is None:
            [entry, _] = answer.payload["plan"]
            assert [each["rows"] for each in entry["preflight"]["tables"]] == [0]
            assert {each["result"] for each in entry["preflight"]["checks"]} == {"passed"}

    # Those that it cannot avoid: Alembic's and SQLAlchemy's statements cannot be qualified.
    assert {call.role for call in calls(postgres_server, database)} == {strong.user}
    assert calls_of_ours(postgres_server, database) == []


def test_a_superuser_s_login_is_refused_until_the_sql_of_the_message_was_run(
    runner: Runner,
    postgres_server: Server,
    database: Database,
    strong: Database,
    put_secret: Callable[[object], str],
    tmp_path: Path,
) -> None:
    function = runner.start(write_tree(tmp_path / "tree", ABC), DB_SECRET_ID=put_secret(strong.secret))
    attacked = postgres_server.database(database.name)
    execute(
        attacked,
        f"ALTER SCHEMA public OWNER TO {strong.user}",
        f'GRANT CONNECT ON DATABASE {database.name} TO "{database.user}"',
        f'GRANT CREATE ON SCHEMA public TO "{database.user}"',
    )
    # Alembic compares "char" with text.
    execute(
        database,
        'CREATE FUNCTION public.attack("char", text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN'
        f' ALTER ROLE "{database.user}" SUPERUSER; RETURN $1::text = $2; END $$',
        'CREATE OPERATOR public.= (FUNCTION = public.attack, LEFTARG = "char", RIGHTARG = text)',
    )

    mended = []
    while (answer := function.invoke({"action": "status"})).error_type is not None:
        assert answer.error_type == "ConfigurationError"
        assert f"role {database.user} " in answer.message
        assert "public" in answer.message
        mended += re.findall(r"((?:REVOKE|DROP)[^;]*?)(?: \(read it[^)]*\)| \(read its[^)]*\))?;", answer.message)
        execute(attacked, *mended[-3:])
        assert len(mended) < 10

    assert query(attacked, "SELECT rolsuper FROM pg_roles WHERE rolname = %s", (database.user,)) == [(False,)]
    assert f"REVOKE CREATE ON SCHEMA public FROM {database.user}" in mended
    assert function.invoke().error_type is None
    assert runner.events("schema.untrusted") == []


@pytest.mark.stress
def test_an_ordinary_login_warns(runner: Runner, postgres_server: Server, database: Database, tmp_path: Path) -> None:
    execute(postgres_server.database(database.name), "GRANT CREATE ON SCHEMA public TO PUBLIC")
    function = runner.start(write_tree(tmp_path / "tree", ABC))

    assert function.invoke().error_type is None

    [line] = runner.events("schema.untrusted")
    assert line["level"] == "WARNING"
    assert "every role may create in schema public: REVOKE CREATE ON SCHEMA public FROM PUBLIC;" in line["message"]
    report = function.invoke({"action": "doctor"}).payload
    [step] = [step for step in report["steps"] if step["step"] == "search path"]
    assert (step["ok"], "REVOKE CREATE ON SCHEMA public FROM PUBLIC;" in step["message"]) == (False, True)


@pytest.mark.parametrize(
    "setting,error",
    [
        ("refuse", "ConfigurationError"),
        pytest.param("warn", None, marks=pytest.mark.stress),
        pytest.param("ignore", None, marks=pytest.mark.stress),
    ],
)
def test_a_schema_that_env_py_itself_puts_into_the_search_path_is_checked(
    runner: Runner, database: Database, tmp_path: Path, setting: str, error: str | None
) -> None:
    execute(database, "CREATE SCHEMA shared", "GRANT ALL ON SCHEMA shared TO PUBLIC")
    before = "    with connectable.connect() as connection:\n"
    sets_path = "        connection.exec_driver_sql('SET search_path = public, shared'); connection.commit()\n"
    tree = write_tree(tmp_path / "tree", ABC, env_py=ENV_PY.replace(before, before + sets_path))

    answer = runner.invoke(tree, UNTRUSTED_SCHEMA=setting)

    assert answer.error_type == error
    warned = [line["message"] for line in runner.events("schema.untrusted")]
    assert ["every role may create in schema shared" in message for message in warned] == [True] * (setting == "warn")
    assert query(database, "SELECT to_regclass('a1') IS NULL") == [(error is not None,)]
