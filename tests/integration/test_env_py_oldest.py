"""The oldest SQLAlchemy 2, and an Alembic of its time, give the same results as the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.env_py.backend import ABC, Backend, online, package_with
from tests.support.trees import ALEMBIC_INI, ENV_PY, Rev, sql

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    return package_with(package, "oldest.txt", shared_run / "package-oldest")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path, ALLOW_DOWNGRADE="true")


@pytest.mark.stress
def test_every_action(backend: Backend) -> None:
    models = ENV_PY.replace(
        "target_metadata = None",
        "import alembic, sqlalchemy as sa\nprint(alembic.__version__, sa.__version__)\ntarget_metadata = sa.MetaData()",
    )
    backend.put(models)
    events: list[dict[str, str]] = [
        {"action": "history"},
        {"action": "plan"},
        {"action": "upgrade"},
        {"action": "status"},
        {"action": "check"},
        {"action": "downgrade", "revision": "a1", "confirm": "c3"},
        {"action": "stamp", "revision": "b2", "confirm": "a1"},
    ]
    answers = {event["action"]: backend.invoke(event) for event in events}

    failed = {action: answer.message for action, answer in answers.items() if answer.error_type}
    assert list(failed) == ["check"]
    assert "differ in 3 ways" in failed["check"]
    assert [entry["sql"] is None for entry in answers["plan"].payload["plan"]] == [False] * 3
    assert (answers["downgrade"].payload["revision"], answers["stamp"].payload["revision"]) == ("a1", "b2")
    assert {text.startswith("1.13.0 2.0.") for _, text in backend.output("stdout")} == {True}


def test_transactions_and_connections(backend: Backend) -> None:
    after = online(
        "with create_engine(os.environ['DATABASE_URL']).connect() as connection:\n"
        "    context.configure(connection=connection)\n"
        "    with connection.begin():\n"
        "        context.run_migrations()"
    )
    handed_over = online("context.configure(config.attributes['connection'])\ncontext.run_migrations()")
    committing = Rev("d4", "op.execute('CREATE TABLE d (id int)')\nop.get_bind().commit()")

    backend.upgraded(after)
    assert backend.run(after, [*ABC, Rev("d4", sql("SELECT 1 / 0"))]).error_type == "MigrationFailed"
    assert backend.tables() == []
    backend.upgraded(handed_over, [*ABC, committing])
    assert backend.version() == ["d4"]


@pytest.mark.stress
def test_a_setting_of_env_pys_transaction(backend: Backend) -> None:
    sees = "op.execute(f\"CREATE TABLE {name} AS SELECT current_setting('app.mode', true) AS mode\")"
    revisions = [Rev(name, f"name = {name!r}\n{sees}") for name in ("a1", "b2", "c3")]
    block = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(text("SET LOCAL app.mode = 'on'"))
        context.run_migrations()
"""

    backend.upgraded(online(block), revisions)

    assert backend.query("SELECT mode FROM a1 UNION ALL SELECT mode FROM c3") == [("on",), ("on",)]


@pytest.mark.stress
def test_a_version_location_that_is_not_there(backend: Backend) -> None:
    ini = ALEMBIC_INI.replace("[alembic]", "[alembic]\nversion_locations = %(here)s/alembic/versions %(here)s/nowhere")

    assert "has no folder" in backend.refused(ini=ini)
