"""Answers that the function takes from the manifest instead of Alembic are never wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from localcloud.runtime_api import Function
from tests.support.bystander import begin_at, execute, query
from tests.support.functions import RUNTIME, assemble
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

REVISIONS = [
    Rev("a1", sql("CREATE TABLE a (id int)"), sql("DROP TABLE a")),
    Rev("b2", sql("CREATE TABLE b (id int)"), sql("DROP TABLE b")),
]
# It leaves a note of each run.
NOTED = f'import os\nwith open(os.environ["NOTES"], "a") as notes:\n    notes.write("ran ")\n{ENV_PY}'

# Tells, beside the answer, what was loaded for it.
PROBE = """
import sys
from lambda_migrate.handler import handler

def probe(event, context):
    handler(event, context)
    return sorted(sys.modules)
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


def noted(function: Function, notes: Path, event: object = None) -> tuple[dict[str, Any], str]:
    """Return the result of an invocation, and the parts of env.py that it ran."""
    notes.write_text("")
    answer = function.invoke(event)
    assert answer.error_type is None, answer.payload
    return {**answer.payload, "duration_ms": 0, "request_id": ""}, notes.read_text()


def test_at_head_env_py_is_not_run_and_the_answer_is_the_one_it_would_give(
    runner: Runner, database: Database, tmp_path: Path, notes: Path
) -> None:
    begin_at(database, "b2")
    function = runner.start(write_tree(tmp_path / "tree", REVISIONS, env_py=NOTED), NOTES=str(notes))
    asked = runner.start(
        write_tree(tmp_path / "asked", REVISIONS, env_py=f"{NOTED}\nsearch_path = None\n"), NOTES=str(notes)
    )

    for event in (None, {"revision": "heads"}, {"revision": "b2"}, {"action": "status"}):
        short, ran_short = noted(function, notes, event)
        long, ran_long = noted(asked, notes, event)

        assert (ran_short, ran_long) == ("", "ran "), event
        assert short == long
        assert short["up_to_date"] is True


@pytest.mark.stress
def test_other_requests_run_env_py(runner: Runner, database: Database, tmp_path: Path, notes: Path) -> None:
    models = NOTED.replace("target_metadata = None", "import sqlalchemy as sa\ntarget_metadata = sa.MetaData()")
    begin_at(database, "b2")
    function = runner.start(write_tree(tmp_path / "tree", [Rev("a1"), Rev("b2")], env_py=models), NOTES=str(notes))

    for event in ({"revision": "a1"}, {"revision": "+1"}, {"action": "check"}):
        notes.write_text("")
        function.invoke(event)

        assert notes.read_text() == "ran ", event


def test_a_version_table_that_holds_anything_else_is_not_believed(
    runner: Runner, database: Database, tmp_path: Path, notes: Path
) -> None:
    begin_at(database, "b2")
    function = runner.start(write_tree(tmp_path / "tree", [Rev("a1"), Rev("b2")], env_py=NOTED), NOTES=str(notes))

    for found in (
        "UPDATE alembic_version SET version_num = 'a1'",
        "DELETE FROM alembic_version",
        "INSERT INTO alembic_version VALUES ('a1'), ('b2')",
        # One of them is env.py's: which, only it can tell.
        """DELETE FROM alembic_version WHERE version_num = 'a1';
           CREATE SCHEMA other; CREATE TABLE other.alembic_version (version_num text)""",
    ):
        execute(database, found)

        notes.write_text("")
        function.invoke({"action": "status"})

        assert notes.read_text() == "ran ", found


def test_another_trees_version_table_with_the_same_ids_is_not_taken_for_ours(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    begin_at(database, "b2")
    elsewhere = ENV_PY.replace("connection=connection,", 'connection=connection, version_table="two_version",')
    two = write_tree(tmp_path / "two", [Rev("a1", sql("CREATE TABLE a2 (id int)")), Rev("b2")], env_py=elsewhere)

    result = runner.invoke(two).payload

    assert [applied["revision"] for applied in result["applied"]] == ["a1", "b2"]
    assert query(database, "SELECT to_regclass('a2') IS NOT NULL") == [(True,)]


def test_a_schema_at_head_is_passed_over_without_env_py_whatever_other_schemas_have(
    runner: Runner, database: Database, tmp_path: Path, notes: Path
) -> None:
    # One at head, one behind, one that was never begun, and a name that must be quoted.
    execute(database, "CREATE SCHEMA one", "CREATE SCHEMA two", "CREATE SCHEMA three", 'CREATE SCHEMA "Acme & Co"')
    function = runner.start(write_tree(tmp_path / "tree", REVISIONS, env_py=NOTED), NOTES=str(notes))
    asked = runner.start(
        write_tree(tmp_path / "asked", REVISIONS, env_py=f"{NOTED}\nsearch_path = None\n"), NOTES=str(notes)
    )
    begin_at(database, "b2", "one")
    begin_at(database, "a1", "two")
    noted(function, notes, {"target": {"schema": "Acme & Co"}})

    short, ran = {}, {}
    for schema in ("one", "two", "three", "Acme & Co"):
        event = {"action": "status", "target": {"schema": schema}}
        short[schema], ran[schema] = noted(function, notes, event)
        assert short[schema] == noted(asked, notes, event)[0]

    assert ran == {"one": "", "two": "ran ", "three": "ran ", "Acme & Co": ""}
    assert [status["revision"] for status in short.values()] == ["b2", "a1", None, "b2"]


@pytest.mark.parametrize(
    "found",
    [
        "ALTER TABLE one.alembic_version RENAME TO was; CREATE VIEW one.alembic_version AS SELECT * FROM one.was",
        pytest.param("DELETE FROM one.alembic_version", marks=pytest.mark.stress),
        # Another role may act as the owner of the schema, and could replace the table.
        "CREATE ROLE {other} LOGIN; ALTER SCHEMA one OWNER TO {other}; GRANT USAGE ON SCHEMA one TO {login}",
    ],
    ids=["a view", "an empty table", "a schema of another role"],
)
def test_a_schemas_version_table_that_another_role_could_write_is_not_believed(
    runner: Runner, database: Database, postgres_server: Server, tmp_path: Path, notes: Path, found: str
) -> None:
    execute(database, "CREATE SCHEMA one")
    begin_at(database, "b2", "one")
    tree = write_tree(tmp_path / "tree", REVISIONS, env_py=NOTED)
    other = f"{database.name}_other"
    superuser = postgres_server.database(database.name)
    execute(superuser, found.format(other=other, login=database.user))

    runner.invoke(tree, {"action": "status", "target": {"schema": "one"}}, NOTES=str(notes))

    if "ROLE" in found:
        execute(superuser, f"DROP SCHEMA one CASCADE; DROP ROLE {other}")
    assert notes.read_text() == "ran "


class TestAPackageThatIsNotTheOneThatWasBuilt:
    @pytest.fixture
    def built(self, database: Database, package: Path, tmp_path: Path) -> Path:
        """A package whose function has not been started, and a database at its first revision."""
        begin_at(database, "a1")
        return assemble(package, write_tree(tmp_path / "tree", REVISIONS), tmp_path / "tampered")

    @staticmethod
    def invoke(runner: Runner, package: Path) -> Any:  # noqa: ANN401 - an answer
        with Function(package, runner.environment, RUNTIME) as function:
            return function.invoke()

    @pytest.mark.parametrize(
        "path, change, named",
        [
            ("backend/alembic/versions/c3_.py", "revision = 'c3'\ndown_revision = 'b2'\n", "its revision files"),
            ("backend/alembic/env.py", "raise SystemExit\n", "backend/alembic/env.py"),
            ("backend/alembic.ini", "[alembic]\nscript_location = elsewhere\n", "backend/alembic.ini"),
            pytest.param("graph.json", '{"revisions":[]}', "graph.json", marks=pytest.mark.stress),
            ("manifest.json", "{", "manifest.json"),
        ],
    )
    def test_is_refused_before_anything_runs(
        self, runner: Runner, database: Database, built: Path, path: str, change: str, named: str
    ) -> None:
        (built / path).write_text(change)

        answer = self.invoke(runner, built)

        assert answer.error_type == "ConfigurationError"
        assert named in answer.message
        assert query(database, "SELECT version_num FROM alembic_version") == [("a1",)]

    def test_is_refused_for_a_pending_revision_of_the_same_size(
        self, runner: Runner, database: Database, built: Path
    ) -> None:
        revision = built / "backend" / "alembic" / "versions" / "b2_.py"
        revision.write_text(revision.read_text().replace("CREATE TABLE b", "CREATE TABLE x"))

        answer = self.invoke(runner, built)

        assert answer.error_type == "ConfigurationError"
        assert "b2_.py changed after the package was built" in answer.message
        assert query(database, "SELECT version_num, to_regclass('x') FROM alembic_version") == [("a1", None)]

    @pytest.mark.stress
    def test_is_seen_by_doctor_also_where_no_run_would_look(
        self, runner: Runner, database: Database, built: Path
    ) -> None:
        revision = built / "backend" / "alembic" / "versions" / "a1_.py"
        revision.write_text(f"{revision.read_text()}# touched\n")

        with Function(built, runner.environment, RUNTIME) as function:
            report = function.invoke({"action": "doctor"}).payload

        [step] = [step for step in report["steps"] if step["step"] == "package"]
        assert (step["ok"], "a1_.py changed" in step["message"]) == (False, True)
        assert query(database, "SELECT version_num FROM alembic_version") == [("a1",)]


@pytest.mark.stress
def test_modules_are_loaded_only_if_a_run_needs_them(runner: Runner, package: Path, tmp_path: Path) -> None:
    """A guard of the cold start. It names whole libraries, because modules change between versions."""
    out = assemble(package, write_tree(tmp_path / "tree", REVISIONS), tmp_path / "probed")
    (out / "probe.py").write_text(PROBE)

    def loaded(event: object) -> set[str]:
        with Function(out, runner.environment, RUNTIME, handler="probe.probe") as function:
            answer = function.invoke(event)
        assert answer.error_type is None, answer.payload
        return set(answer.payload)

    def libraries(modules: set[str]) -> set[str]:
        return {"alembic", "sqlalchemy", "boto3", "s3transfer", "botocore", "psycopg2"} & modules

    pending = loaded(None)
    nothing = loaded(None)

    # The process of env.py loads Alembic and SQLAlchemy, and the function's never does.
    assert libraries(pending) == {"botocore", "psycopg2"}
    assert libraries(nothing) == {"botocore", "psycopg2"}
    ours = {module for module in nothing if module.startswith("lambda_migrate.")}
    assert ours.isdisjoint(
        {"lambda_migrate.run.attempts", "lambda_migrate.run.supervisor", "lambda_migrate.actions.doctor"}
    )
    assert not [module for module in ours if module.startswith(("lambda_migrate.env_py", "lambda_migrate.fleet"))]
