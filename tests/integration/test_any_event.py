"""Any event is either a valid request or refused, and only actions that change the database change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings

from lambda_migrate.invocation import errors
from lambda_migrate.invocation.errors import InvalidRequest, MigrationError
from lambda_migrate.invocation.request import parse_request
from tests.support.events import EVENTS
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

NAMED = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, MigrationError)}
CHANGES = {"upgrade", "downgrade", "stamp"}


def is_request(event: object) -> str | None:
    try:
        return parse_request(event).action
    except InvalidRequest:
        return None


def test_an_event_is_a_request_or_refused_and_only_a_change_changes_anything(
    runner: Runner, database: Database, tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    revisions = [
        Rev(name, sql(f"CREATE TABLE {name} (id int)"), sql(f"DROP TABLE {name}")) for name in ("a1", "b2", "c3")
    ]
    function = runner.start(write_tree(tmp_path / "tree", revisions), ALLOW_DOWNGRADE="true", CONNECT_TIMEOUT_S="2")
    connection = database.connect()

    def state() -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            found = cursor.fetchall()
            if ("alembic_version",) in found:
                cursor.execute("SELECT version_num FROM alembic_version")
                found += cursor.fetchall()
            return found

    @settings(
        max_examples=rounds(60, 10_000),
        deadline=None,
        # An example cannot be made smaller when the database is no longer as it was.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(EVENTS)
    def send(event: object) -> None:
        before = state()
        action = is_request(event)

        answer = function.invoke(event)

        if action is None:
            assert answer.error_type == "InvalidRequest"
        else:
            assert answer.error_type is None or answer.error_type in NAMED, answer.payload
        if action not in CHANGES or answer.error_type is not None:
            assert state() == before

    send()
    connection.close()
