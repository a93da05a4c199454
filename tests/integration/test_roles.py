"""If env.py sets a role, everything acts as that role, also if the login does not inherit its rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg2.errors import InsufficientPrivilege

from localcloud import postgres
from tests.support.bystander import administer, execute, query
from tests.support.samples import sampled_by_name
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

ONCE = "connection.exec_driver_sql('SET ROLE {role}'); connection.commit()"
LISTENER = """
import sqlalchemy
@sqlalchemy.event.listens_for(connectable, "connect")
def set_role(dbapi_connection, _):
    with dbapi_connection.cursor() as cursor:
        cursor.execute("SET ROLE {role}")
    dbapi_connection.commit()
"""


@pytest.fixture
def owner(postgres_server: Server, database: Database) -> Iterator[str]:
    """A role that owns a schema of the database, which the login may set and does not inherit from."""
    role = f"{database.name}_objects"
    administer(
        postgres_server, f"CREATE ROLE {role}", f'GRANT {role} TO "{database.user}" WITH INHERIT FALSE, SET TRUE'
    )
    execute(postgres_server.database(database.name), f"CREATE SCHEMA {role} AUTHORIZATION {role}")
    yield role
    execute(postgres_server.database(database.name), f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def env_py(role: str, how: str) -> str:
    body = how.format(role=role).strip("\n")
    before = "    with connectable.connect() as connection:\n"
    if how is LISTENER:
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        changed = ENV_PY.replace(before, f"{indented}{before}")
    else:
        changed = ENV_PY.replace(before, f"{before}        {body}\n")
    assert changed != ENV_PY
    return changed.replace("target_metadata=target_metadata)", f"target_metadata=None, version_table_schema='{role}')")


@pytest.mark.stress
def test_a_role_may_have_a_name_with_a_percent_sign(
    runner: Runner, database: Database, postgres_server: Server, tmp_path: Path
) -> None:
    role = f"{database.name} 5%s"
    administer(postgres_server, f'CREATE ROLE "{role}"', f'GRANT "{role}" TO "{database.user}"')
    whole = postgres_server.database(database.name)
    execute(whole, f'GRANT ALL ON SCHEMA public TO "{role}"')
    set_role = f"sqlalchemy.text('SET ROLE \"{role}\"')"
    before = "    with connectable.connect() as connection:\n"
    changed = f"    import sqlalchemy\n{before}        connection.execute({set_role}); connection.commit()\n"
    tree = write_tree(
        tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=ENV_PY.replace(before, changed)
    )
    try:
        assert runner.invoke(tree).payload.get("revision") == "a1"
        assert query(whole, "SELECT tableowner FROM pg_tables WHERE tablename = 'a'") == [(role,)]
    finally:
        execute(whole, f'DROP OWNED BY "{role}" CASCADE', f'DROP ROLE "{role}"')


@pytest.mark.parametrize("how", sampled_by_name({"once": ONCE, "in a listener": LISTENER}, {"in a listener"}))
def test_each_action_acts_as_the_role(
    runner: Runner, database: Database, postgres_server: Server, owner: str, tmp_path: Path, how: str
) -> None:
    revisions = [
        Rev("a1", sql(f"CREATE TABLE {owner}.a (id int)"), sql(f"DROP TABLE {owner}.a")),
        Rev("b2", sql(f"CREATE TABLE {owner}.b (id int)"), sql(f"DROP TABLE {owner}.b")),
    ]
    function = runner.start(write_tree(tmp_path / "tree", revisions, env_py=env_py(owner, how)), ALLOW_DOWNGRADE="true")

    # The login itself may not alter it, and need not.
    execute(
        postgres_server.database(database.name),
        "CREATE TABLE public.theirs (id int)",
        f"ALTER TABLE public.theirs OWNER TO {owner}",
    )

    assert function.invoke({"action": "status"}).payload["revision"] is None
    report = function.invoke({"action": "doctor"}).payload
    assert report["healthy"] is True, report
    result = function.invoke().payload
    assert ([applied["revision"] for applied in result["applied"]], result["revision"]) == (["a1", "b2"], "b2")
    assert function.invoke({"action": "status"}).payload["up_to_date"] is True
    assert function.invoke({"action": "plan"}).payload["plan"] == []
    reverted = function.invoke({"action": "downgrade", "revision": "-1", "confirm": "b2"}).payload
    assert (reverted["revision"], [each["revision"] for each in reverted["reverted"]]) == ("a1", ["b2"])
    assert function.invoke({"action": "stamp", "revision": "b2", "confirm": "a1"}).payload["revision"] == "b2"

    owners = query(
        postgres_server.database(database.name),
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = %s",
        (owner,),
    )
    assert owners == [(owner,)]


@pytest.mark.stress
def test_a_failure_tells_where_the_database_is(runner: Runner, owner: str, tmp_path: Path) -> None:
    revisions = [Rev("a1", sql(f"CREATE TABLE {owner}.a (id int)")), Rev("b2", sql("SELECT 1 / 0"))]

    answer = runner.invoke(write_tree(tmp_path / "tree", revisions, env_py=env_py(owner, ONCE)))

    assert answer.error_type == "MigrationFailed"
    assert "the database is at a1" in answer.message
    assert [line["applied"] for line in runner.events("migration.failed")] == [["a1"]]


def test_a_login_that_always_acts_as_the_owner(
    runner: Runner, database: Database, postgres_server: Server, tmp_path: Path
) -> None:
    """The layout in docs/security.md: the owner cannot log in, and a setting of the login makes it act as the owner."""
    owner, application = f"{database.name}_layout", f"{database.name}_app"
    postgres.create_role(postgres_server, application, "app")
    roles = postgres.Roles(owner, migrator=database.user, application=application)
    for _ in range(2):
        postgres.lay_out_roles(postgres_server, database.name, roles)
    try:
        revisions = [
            Rev("a1", sql("CREATE TABLE a (id int)"), sql("DROP TABLE a")),
            Rev("b2", sql("CREATE TABLE b (id int)"), sql("DROP TABLE b")),
        ]
        function = runner.start(write_tree(tmp_path / "tree", revisions), ALLOW_DOWNGRADE="true")

        assert function.invoke({"action": "doctor"}).payload["healthy"] is True
        assert function.invoke().payload["revision"] == "b2"
        # The second time, the version table alone shows that there is nothing to do.
        assert function.invoke().payload["up_to_date"] is True
        assert function.invoke({"action": "downgrade", "revision": "-1", "confirm": "b2"}).payload["revision"] == "a1"
        assert runner.events("schema.untrusted") == []
        owners = query(database, "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'")
        assert owners == [(owner,)]
        as_application = postgres_server.database(database.name, application, "app")
        execute(as_application, "INSERT INTO a VALUES (1)", "DELETE FROM a")
        with pytest.raises(InsufficientPrivilege):
            execute(as_application, "CREATE TABLE mine ()")
    finally:
        administer(postgres_server, f'ALTER DATABASE {database.name} OWNER TO "{database.user}"')
        whole = postgres_server.database(database.name)
        for role in (owner, application):
            execute(whole, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")
