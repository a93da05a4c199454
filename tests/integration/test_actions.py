"""The results of the actions, and that they change nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bystander import execute, query
from tests.support.proxy import closed_port
from tests.support.samples import sampled
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from localcloud.runtime_api import Answer
    from tests.support.functions import Runner

ENV_PY_WITH_MODELS = ENV_PY.replace(
    "target_metadata = None",
    "from sqlalchemy import Column, Integer, MetaData, Table\n"
    "target_metadata = MetaData()\n"
    'Table("a", target_metadata, Column("id", Integer))',
)

AT_C3 = (
    "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)",
    "INSERT INTO alembic_version VALUES ('c3')",
)


def ids(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["revision"] for entry in entries]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "tree",
        [
            Rev("a1", sql("CREATE TABLE a (id int)"), sql("DROP TABLE a"), description="Add a"),
            Rev("b2", sql("CREATE TABLE b (id int)"), sql("DROP TABLE b"), description="Add b"),
            Rev("c3", sql("CREATE TABLE c (id int)"), sql("DROP TABLE c"), description="Add c"),
        ],
        env_py=ENV_PY_WITH_MODELS,
    )


class TestPlan:
    def test_it_shows_the_sql_of_pending_revisions_and_changes_nothing(
        self, runner: Runner, database: Database, tree: Path
    ) -> None:
        function = runner.start(tree)
        function.invoke({"revision": "a1"})

        result = function.invoke({"action": "plan"}).payload

        assert ids(result["pending"]) == ["b2", "c3"]
        assert ids(result["plan"]) == ["b2", "c3"]
        assert "CREATE TABLE b (id int)" in result["plan"][0]["sql"]
        assert "UPDATE alembic_version SET version_num='b2'" in result["plan"][0]["sql"]
        assert "CREATE TABLE b" not in result["plan"][1]["sql"]
        assert (result["revision"], result["applied"]) == ("a1", [])
        assert query(database, "SELECT to_regclass('b'), version_num FROM alembic_version") == [(None, "a1")]

    @pytest.mark.stress
    def test_of_an_empty_database_it_leaves_it_empty(self, runner: Runner, database: Database, tree: Path) -> None:
        result = runner.invoke(tree, {"action": "plan", "revision": "+2"}).payload

        assert ids(result["plan"]) == ["a1", "b2"]
        assert query(database, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]

    @pytest.mark.stress
    def test_it_has_the_reviewers_findings_and_marks_unreviewed_revisions(self, runner: Runner, tree: Path) -> None:
        found = {"rule": "ban-drop-table", "severity": "warning", "message": "It is used.", "reason": "Not any more."}
        reviewed = {"revisions": {"a1": {"sha256": "", "findings": []}, "b2": {"sha256": "", "findings": [found]}}}
        (tree / "alembic" / "reviewed.json").write_text(json.dumps(reviewed))

        result = runner.invoke(tree, {"action": "plan"}).payload

        assert [entry["findings"] for entry in result["plan"]] == [[], [found], None]

    @pytest.mark.stress
    def test_an_invalid_reviewed_json_is_named(self, runner: Runner, tree: Path) -> None:
        (tree / "alembic" / "reviewed.json").write_text("[]")

        answer = runner.invoke(tree, {"action": "plan"})

        assert answer.error_type == "ConfigurationError"
        assert "reviewed.json" in answer.message

    @pytest.mark.stress
    def test_a_revision_that_cannot_be_rendered_says_why(
        self, runner: Runner, database: Database, tmp_path: Path
    ) -> None:
        reading = "op.execute(sa.text('SELECT :n').bindparams(n=op.get_bind().execute(sa.text('SELECT 1')).scalar()))"
        tree = write_tree(tmp_path / "reading", [Rev("a1", reading), Rev("b2", sql("CREATE TABLE b (id int)"))])

        result = runner.invoke(tree, {"action": "plan"}).payload

        assert result["plan"][0]["sql"] is None
        assert "cannot be rendered without a database" in result["plan"][0]["error"]
        assert "CREATE TABLE b" in result["plan"][1]["sql"]
        assert query(database, "SELECT to_regclass('b')") == [(None,)]

    @pytest.mark.stress
    def test_a_long_one_is_cut_with_a_note(self, runner: Runner, tmp_path: Path) -> None:
        long = sql(f"COMMENT ON SCHEMA public IS '{'x' * 1_500_000}'")
        tree = write_tree(tmp_path / "long", [Rev(f"r{number}", long) for number in range(4)])

        result = runner.invoke(tree, {"action": "plan"}).payload

        assert len(result["plan"]) == 3
        assert result["truncated"].startswith("3 of 4 shown")
        assert len(result["pending"]) == 4


class TestStatus:
    def test_it_tells_where_the_database_is(self, runner: Runner, database: Database, tree: Path) -> None:
        function = runner.start(tree)
        function.invoke({"revision": "b2"})

        result = function.invoke({"action": "status"}).payload

        assert (result["revision"], ids(result["pending"]), result["up_to_date"]) == ("b2", ["c3"], False)
        assert (result["lock"], result["invalid_indexes"]) == (None, [])
        assert result["database"] == database.name

    @pytest.mark.stress
    def test_of_an_empty_database_it_leaves_it_empty(self, runner: Runner, database: Database, tree: Path) -> None:
        result = runner.invoke(tree, {"action": "status"}).payload

        assert (result["revision"], ids(result["pending"])) == (None, ["a1", "b2", "c3"])
        assert query(database, "SELECT to_regclass('alembic_version')") == [(None,)]

    @pytest.mark.stress
    def test_it_reports_a_newer_database(self, runner: Runner, database: Database, tmp_path: Path) -> None:
        execute(database, *AT_C3)
        older = write_tree(tmp_path / "older", [Rev("a1")])

        result = runner.invoke(older, {"action": "status"}).payload

        assert (result["revision"], result["ahead"]) == ("c3", True)


def test_history_lists_the_packaged_tree_without_a_database(runner: Runner, tree: Path) -> None:
    answer = runner.invoke(tree, {"action": "history"}, DB_HOST="127.0.0.1", DB_PORT=str(closed_port()))

    result = answer.payload
    assert result["history"] == [
        {"revision": "c3", "description": "Add c", "down_revisions": ["b2"], "branch_labels": [], "head": True},
        {"revision": "b2", "description": "Add b", "down_revisions": ["a1"], "branch_labels": [], "head": False},
        {"revision": "a1", "description": "Add a", "down_revisions": [], "branch_labels": [], "head": False},
    ]


def test_history_lists_the_dependencies_of_a_revision(runner: Runner, tmp_path: Path) -> None:
    labelled = Rev("b2", branch_labels="first")
    dependent = Rev("x1", down=None, depends_on="first")
    tree = write_tree(tmp_path / "tree", [Rev("a1"), labelled, dependent])

    answer = runner.invoke(tree, {"action": "history"}, DB_HOST="127.0.0.1", DB_PORT=str(closed_port()))

    depends_on = {entry["revision"]: entry.get("depends_on") for entry in answer.payload["history"]}
    assert depends_on == {"a1": None, "b2": None, "x1": ["b2"]}


class TestCheck:
    @pytest.mark.stress
    def test_it_finds_models_and_database_alike(self, runner: Runner, tmp_path: Path) -> None:
        tree = write_tree(tmp_path / "alike", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=ENV_PY_WITH_MODELS)
        function = runner.start(tree)
        function.invoke()

        answer = function.invoke({"action": "check"})

        assert answer.payload["status"] == "ok"

    def test_it_tells_the_differences(self, runner: Runner, tree: Path) -> None:
        function = runner.start(tree)
        function.invoke()

        answer = function.invoke({"action": "check"})

        assert answer.error_type == "DriftDetected"
        assert "differ in 2 ways" in answer.message
        assert "remove_table" in answer.message

    @pytest.mark.stress
    def test_it_needs_the_database_at_head(self, runner: Runner, tree: Path) -> None:
        answer = runner.invoke(tree, {"action": "check"})

        assert answer.error_type == "DriftDetected"
        assert "3 revisions pending" in answer.message


class TestDowngrade:
    def test_it_goes_down_to_the_revision_when_confirmed(self, runner: Runner, database: Database, tree: Path) -> None:
        function = runner.start(tree, ALLOW_DOWNGRADE="true")
        function.invoke()

        result = function.invoke({"action": "downgrade", "revision": "a1", "confirm": "c3"}).payload

        assert (result["previous_revision"], result["revision"]) == ("c3", "a1")
        assert ids(result["reverted"]) == ["c3", "b2"]
        assert (result["applied"], ids(result["pending"])) == ([], ["b2", "c3"])
        assert query(database, "SELECT to_regclass('b'), version_num FROM alembic_version") == [(None, "a1")]

    @pytest.mark.stress
    def test_it_goes_down_to_base_and_up_again(self, runner: Runner, database: Database, tree: Path) -> None:
        function = runner.start(tree, ALLOW_DOWNGRADE="true")
        function.invoke()

        down = function.invoke({"action": "downgrade", "revision": "base", "confirm": "c3"}).payload
        up = function.invoke().payload

        assert (down["revision"], ids(down["pending"])) == (None, ["a1", "b2", "c3"])
        assert up["revision"] == "c3"
        assert query(database, "SELECT count(*) FROM a") == [(0,)]

    @pytest.mark.parametrize(
        "allowed,confirm", [("false", "c3"), pytest.param("true", "b2", marks=pytest.mark.stress), ("true", None)]
    )
    def test_it_is_refused_unless_allowed_and_confirmed(
        self, runner: Runner, database: Database, tree: Path, allowed: str, confirm: str | None
    ) -> None:
        function = runner.start(tree, ALLOW_DOWNGRADE=allowed)
        function.invoke()

        answer = function.invoke({"action": "downgrade", "revision": "a1", "confirm": confirm})

        assert answer.error_type == "DowngradeRefused"
        assert query(database, "SELECT version_num FROM alembic_version") == [("c3",)]

    @pytest.mark.stress
    def test_a_failing_one_leaves_the_database_at_the_last_good_revision(
        self, runner: Runner, database: Database, tmp_path: Path
    ) -> None:
        tree = write_tree(tmp_path / "failing", [Rev("a1"), Rev("b2", downgrade=sql("SELECT 1 / 0")), Rev("c3")])
        function = runner.start(tree, ALLOW_DOWNGRADE="true")
        function.invoke()

        answer = function.invoke({"action": "downgrade", "revision": "base", "confirm": "c3"})

        assert answer.error_type == "MigrationFailed"
        assert "revision b2" in answer.message
        assert query(database, "SELECT version_num FROM alembic_version") == [("b2",)]


class TestStamp:
    @pytest.mark.stress
    def test_it_sets_the_version_and_runs_nothing(self, runner: Runner, database: Database, tree: Path) -> None:
        result = runner.invoke(
            tree, {"action": "stamp", "revision": "b2", "confirm": None}, ALLOW_DOWNGRADE="true"
        ).payload

        assert (result["previous_revision"], result["revision"]) == (None, "b2")
        assert (result["applied"], ids(result["pending"])) == ([], ["c3"])
        assert query(database, "SELECT to_regclass('a'), version_num FROM alembic_version") == [(None, "b2")]

    def test_it_is_the_way_back_from_a_revision_that_the_package_does_not_have(
        self, runner: Runner, database: Database, tree: Path
    ) -> None:
        function = runner.start(tree, ALLOW_DOWNGRADE="true")
        function.invoke()
        execute(database, "UPDATE alembic_version SET version_num = 'lost'")

        result = function.invoke({"action": "stamp", "revision": "c3", "confirm": "lost"}).payload

        assert (result["previous_revision"], result["revision"], result["pending"]) == ("lost", "c3", [])
        assert query(database, "SELECT version_num FROM alembic_version") == [("c3",)]

        execute(database, "UPDATE alembic_version SET version_num = 'lost'")
        base = function.invoke({"action": "stamp", "revision": "base", "confirm": "lost"}).payload

        assert (base["previous_revision"], base["revision"], len(base["pending"])) == ("lost", None, 3)

    def test_it_is_refused_unless_confirmed(self, runner: Runner, database: Database, tree: Path) -> None:
        function = runner.start(tree, ALLOW_DOWNGRADE="true")
        function.invoke({"revision": "a1"})

        answer = function.invoke({"action": "stamp", "revision": "c3"})

        assert answer.error_type == "DowngradeRefused"
        assert "a1" in answer.message
        assert query(database, "SELECT version_num FROM alembic_version") == [("a1",)]


def steps(answer: Answer) -> dict[str, bool | None]:
    return {step["step"]: step["ok"] for step in answer.payload["steps"]}


class TestDoctor:
    def test_a_healthy_stage(self, runner: Runner, database: Database, tree: Path) -> None:
        answer = runner.invoke(tree, {"action": "doctor"})

        assert answer.payload["healthy"] is True, answer.payload
        assert list(steps(answer)) == [
            *("package", "secret", "dns", "tcp", "tls", "login", "pooler", "server", "privileges", "search path"),
            *("version table", "lock"),
        ]  # fmt: skip
        assert query(database, "SELECT to_regclass('alembic_version')") == [(None,)]

    @pytest.mark.stress
    def test_a_database_ahead_of_the_package_is_healthy_only_where_an_upgrade_leaves_it_alone(
        self, runner: Runner, database: Database, tmp_path: Path
    ) -> None:
        execute(database, *AT_C3)
        older = write_tree(tmp_path / "older", [Rev("a1"), Rev("b2")])

        answer = runner.invoke(older, {"action": "doctor"})
        allowed = runner.invoke(older, {"action": "doctor"}, NEWER_DATABASE="ok")

        assert (answer.payload["healthy"], steps(answer)["version table"]) == (False, False)
        assert (allowed.payload["healthy"], steps(allowed)["version table"]) == (True, True)

    @pytest.mark.parametrize("needed,healthy", [("early", True), ("absent", False)])
    def test_a_revision_that_needs_what_env_py_imports_is_healthy_as_an_upgrade_succeeds(
        self, runner: Runner, tmp_path: Path, needed: str, *, healthy: bool
    ) -> None:
        late = f"import sys\nif {needed!r} not in sys.modules: raise ImportError('too early')\n"
        tree = write_tree(
            tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=f"import early\n{ENV_PY}"
        )
        [revision] = (tree / "alembic" / "versions").glob("*.py")
        revision.write_text(f"import late\n{revision.read_text()}")
        (tree / "early.py").touch()
        (tree / "late.py").write_text(late)
        function = runner.start(tree)

        answer = function.invoke({"action": "doctor"})
        upgraded = function.invoke()

        assert (answer.payload["healthy"], upgraded.error_type is None) == (healthy, healthy)
        assert steps(answer)["package"] is healthy
        [message] = [step["message"] for step in answer.payload["steps"] if step["step"] == "package"]
        expected = "1 revision, head a1; the revisions can be loaded only after env.py" if healthy else "too early"
        assert expected in message

    def test_a_closed_port(self, runner: Runner, tree: Path) -> None:
        answer = runner.invoke(tree, {"action": "doctor"}, DB_PORT=str(closed_port()))

        assert answer.error_type is None
        assert answer.payload["healthy"] is False
        assert steps(answer)["dns"] is True
        assert steps(answer)["tcp"] is False
        assert steps(answer)["login"] is None

    def test_a_secret_that_is_not_there(self, runner: Runner, tree: Path) -> None:
        answer = runner.invoke(tree, {"action": "doctor"}, DB_SECRET_ID="no/such/secret")

        assert (steps(answer)["package"], steps(answer)["secret"], steps(answer)["dns"]) == (True, False, None)

    def test_the_wrong_certificate_authority(self, runner: Runner, tree: Path) -> None:
        answer = runner.invoke(tree, {"action": "doctor"}, DB_SSLROOTCERT=None)

        assert (steps(answer)["tcp"], steps(answer)["tls"], steps(answer)["login"]) == (True, False, None)

    def test_tables_that_the_role_cannot_alter(
        self, runner: Runner, tree: Path, database: Database, postgres_server: Server
    ) -> None:
        function = runner.start(tree)
        whole = postgres_server.database(database.name)
        execute(whole, "CREATE TABLE public.of_extension (id int)", "ALTER EXTENSION plpgsql ADD TABLE of_extension")
        assert steps(function.invoke({"action": "doctor"}))["privileges"] is True
        execute(whole, "CREATE TABLE public.theirs (id int)")

        answer = function.invoke({"action": "doctor"})

        assert steps(answer)["privileges"] is False
        assert steps(answer)["lock"] is True

    @pytest.mark.stress
    def test_a_schema_for_the_version_table_alone(
        self, runner: Runner, database: Database, postgres_server: Server, tmp_path: Path
    ) -> None:
        whole = postgres_server.database(database.name)
        execute(
            whole, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", f'CREATE SCHEMA app AUTHORIZATION "{database.user}"'
        )
        execute(whole, "ALTER SCHEMA public OWNER TO CURRENT_USER")
        env_py = ENV_PY.replace(
            "context.configure(connection", "context.configure(version_table_schema='app', connection"
        )
        function = runner.start(
            write_tree(tmp_path / "elsewhere", [Rev("a1", sql("CREATE TABLE public.a (id int)"))], env_py=env_py)
        )

        assert steps(function.invoke({"action": "doctor"}))["privileges"] is False
        assert function.invoke().error_type == "MigrationFailed"

    def test_a_tree_that_does_not_load(self, runner: Runner, tmp_path: Path) -> None:
        tree = write_tree(tmp_path / "broken", [Rev("a1")])
        (tree / "alembic" / "versions" / "a1_.py").write_text("revision = 'a1'\ndown_revision = None\n1 / 0\n")

        answer = runner.invoke(tree, {"action": "doctor"})

        assert steps(answer)["package"] is False
        assert steps(answer)["login"] is True


class TestTarget:
    @pytest.mark.stress
    def test_a_schema_has_its_own_tables_and_version(self, runner: Runner, database: Database, tree: Path) -> None:
        execute(database, "CREATE SCHEMA one", 'CREATE SCHEMA "Two %2\'s"')
        function = runner.start(tree)

        for schema in ("one", "Two %2's"):
            result = function.invoke({"target": {"schema": schema}}).payload
            assert (result["schema"], result["previous_revision"], result["revision"]) == (schema, None, "c3")

        found = query(
            database,
            "SELECT relnamespace::regnamespace::text, count(*) FROM pg_class WHERE relname"
            " IN ('a', 'b', 'c', 'alembic_version') GROUP BY 1 ORDER BY 1",
        )
        assert found == [('"Two %2\'s"', 4), ("one", 4)]

    def test_a_schema_that_does_not_exist(self, runner: Runner, tree: Path) -> None:
        answer = runner.invoke(tree, {"target": {"schema": "nowhere"}})

        assert answer.error_type == "InvalidRequest"
        assert "no schema 'nowhere'" in answer.message


def test_a_stage_that_allows_no_target_touches_none(runner: Runner, database: Database, tree: Path) -> None:
    execute(database, "CREATE SCHEMA tenant")
    function = runner.start(tree, TARGETS_ALLOWED=None)

    for target in ({"schema": "tenant"}, {"database": "template1"}, {"database": "postgres"}, {"secret_id": "other"}):
        for action in ("upgrade", "status", "plan"):
            answer = function.invoke({"action": action, "target": target})
            assert (answer.error_type, "target." in answer.message) == ("InvalidRequest", True), answer.payload

    assert function.invoke({"target": {"database": database.name}}).payload["revision"] == "c3"
    assert query(database, "SELECT count(*) FROM pg_class WHERE relnamespace = 'tenant'::regnamespace") == [(0,)]


@pytest.mark.parametrize("lambdas", sampled(["INFO", "DEBUG"], {"DEBUG"}))
def test_lambdas_own_log_level_does_not_replace_the_functions(runner: Runner, lambdas: str) -> None:
    """With JSON as its log format, Lambda sets AWS_LAMBDA_LOG_LEVEL for each function."""
    answer = runner.invoke(event={"action": "history"}, AWS_LAMBDA_LOG_LEVEL=lambdas, LOG_LEVEL="WARNING")

    assert answer.payload["status"] == "ok"
    assert runner.events() == []
