"""The check before env.py finds the roles that could run code with a login's rights."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database import untrusted
from lambda_migrate.database.qualified import SEARCH_PATH, qualified
from tests.support.bystander import administer, execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud.postgres import Database, Server


@dataclass(frozen=True)
class Roles:
    """The login, in a database that it owns, another login, and a role that may not log in."""

    server: Server
    database: Database
    login: str
    other: str
    group: str

    def run(self, *statements: str) -> None:
        """Execute statements as the superuser; {l}, {o}, {g} and {d} are the roles and the database."""
        names = {"l": f'"{self.login}"', "o": self.other, "g": self.group, "d": self.database.name}
        execute(self.server.database(self.database.name), *(statement.format(**names) for statement in statements))

    def findings(self) -> untrusted.Findings:
        """Return the findings of the check, in the function's session and in env.py's."""
        sql = untrusted.query(["public"], missing=True)
        with closing(self.database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(qualified(sql))
            in_any_session = cursor.fetchall()
            cursor.execute(f"SET search_path = {SEARCH_PATH}")
            cursor.execute(sql)
            rows = cursor.fetchall()
        assert rows == in_any_session
        return untrusted.findings(rows)


@pytest.fixture
def roles(postgres_server: Server, database: Database) -> Iterator[Roles]:
    other, group = f"{database.name}_other", f"{database.name}_group"
    administer(
        postgres_server,
        f"CREATE ROLE {other} LOGIN",
        f"CREATE ROLE {group}",
    )
    yield Roles(postgres_server, database, database.user, other, group)
    administer(postgres_server, f'ALTER DATABASE {database.name} OWNER TO "{database.user}"')
    execute(postgres_server.database(database.name), f"DROP OWNED BY {other}, {group} CASCADE")
    administer(postgres_server, f"DROP ROLE {other}", f"DROP ROLE {group}")


ATTACKS = {
    "every role creates": (["GRANT CREATE ON SCHEMA public TO PUBLIC"], "every role may create in schema public"),
    "a role creates": (["GRANT CREATE ON SCHEMA public TO {o}"], "role {o} may create in schema public"),
    "a member creates": (
        ["GRANT CREATE ON SCHEMA public TO {g}", "GRANT {g} TO {o}"],
        "role {o}, as a member of {g}, may create in schema public",
    ),
    "a member that must set the role creates": (
        ["GRANT CREATE ON SCHEMA public TO {g}", "ALTER ROLE {o} NOINHERIT", "GRANT {g} TO {o}"],
        "role {o}, as a member of {g}, may create in schema public",
    ),
    "a role owns the schema": (["ALTER SCHEMA public OWNER TO {o}"], "role {o} owns schema public"),
    "a role owns the database": (
        ["ALTER DATABASE {d} OWNER TO {o}", "GRANT CONNECT ON DATABASE {d} TO {l}"],
        "role {o} owns the database",
    ),
    "a member owns the database": (
        ["ALTER DATABASE {d} OWNER TO {g}", "GRANT CONNECT ON DATABASE {d} TO {l}", "GRANT {g} TO {o}"],
        "role {o}, as a member of {g}, owns the database",
    ),
    "a role may make the schema of $user": (
        ["GRANT CREATE ON DATABASE {d} TO {o}"],
        "role {o} may create the schemas that the search_path names",
    ),
    "a role has left a function": (
        [
            "CREATE FUNCTION public.left_behind(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER FUNCTION public.left_behind OWNER TO {o}",
        ],
        "role {o} has made functions in schema public",
    ),
    "a role has left an operator": (
        [
            "CREATE OPERATOR public.### (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)",
            "ALTER OPERATOR public.### (int, int) OWNER TO {o}",
        ],
        "role {o} has made operators in schema public",
    ),
    "a role owns the version table": (
        ["CREATE TABLE public.alembic_version (version_num text)", "ALTER TABLE public.alembic_version OWNER TO {o}"],
        "role {o} owns the version table in schema public",
    ),
}
SAMPLE = {
    "every role creates",
    "a member that must set the role creates",
    "a role owns the schema",
    "a member owns the database",
    "a role may make the schema of $user",
    "a role has left an operator",
    "a role owns the version table",
}


@pytest.mark.parametrize(
    "statements,problem",
    [
        pytest.param(*case, id=name, marks=() if name in SAMPLE else pytest.mark.stress)
        for name, case in ATTACKS.items()
    ],
)
def test_a_role_is_found_until_the_sql_of_the_finding_was_run(
    roles: Roles, statements: list[str], problem: str
) -> None:
    roles.run(*statements)

    found = roles.findings().found

    assert [finding.problem.startswith(problem.format(o=roles.other, g=roles.group)) for finding in found] == [True]
    roles.run(found[0].mend.replace(" (read it first)", "").replace(" (read its function first)", ""))
    assert not roles.findings()


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT"],
        [
            "ALTER DATABASE {d} OWNER TO postgres",
            "GRANT CONNECT ON DATABASE {d} TO {l}",
            "GRANT CREATE ON SCHEMA public TO {l}",
        ],
        ["ALTER DATABASE {d} OWNER TO {g}", "ALTER SCHEMA public OWNER TO {g}", "GRANT {g} TO {l}"],
        ["GRANT {l} TO {o}", "GRANT CREATE ON SCHEMA public TO {o}"],
        ["GRANT USAGE ON SCHEMA public TO PUBLIC", "GRANT TEMPORARY ON DATABASE {d} TO PUBLIC"],
    ],
    ids=["the login owns all", "a superuser owns it", "its role of owners", "who may act as the login", "usage"],
)
def test_trusted_roles_are_no_finding(roles: Roles, statements: list[str]) -> None:
    roles.run(*statements)

    assert roles.findings() == untrusted.Findings()


def test_a_login_that_may_act_as_a_superuser_counts_as_one(roles: Roles) -> None:
    roles.run("GRANT CREATE ON SCHEMA public TO {o}")
    assert not roles.findings().is_superuser

    roles.run("GRANT postgres TO {l}")

    assert roles.findings().is_superuser
