"""The preflight of pending revisions with the database's own rows."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bystander import administer, execute, query
from tests.support.samples import sampled
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

USERS = "CREATE TABLE users (id int PRIMARY KEY, mail text, boss int, age text)"
BASE = Rev("a1", sql(USERS))


def check(kind: str, columns: list[str], found: str | None, *, table: str = "users", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a check as the reviewer records it."""
    shown = {"check": kind, "table": table, "columns": columns, "name": None, "query": found}
    return {**shown, "changed_before": False, **more}


def table(name: str = "users", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a table as the reviewer records it."""
    lock = {"table": name, "lock": "ACCESS EXCLUSIVE", "blocks": "reads and writes", "reads_all": True}
    return {**lock, "rewrites": False, "while_locked": {"reads": [name], "rewrites": []}, **more}


def measured(*checks: dict[str, Any], tables: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"tables": [table()] if tables is None else tables, "checks": list(checks), "changes": [], **more}


def recorded(folder: Path, revisions: list[Rev], facts: dict[str, dict[str, Any]], **findings: list[Any]) -> Path:
    """Write a tree with what the reviewer recorded of some of its revisions."""
    tree = write_tree(folder, [BASE, *revisions])
    entries = {
        revision: {"sha256": "", "reviewed": True, "findings": findings.get(revision, []), "measured": fact}
        for revision, fact in facts.items()
    }
    (tree / "alembic" / "reviewed.json").write_text(json.dumps({"version": 2, "revisions": entries}))
    return tree


def at_base(database: Database, *rows: str) -> None:
    """Bring the database to the first revision, as Alembic does, and give it rows."""
    version = "CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)"
    execute(database, USERS, version, f"INSERT INTO alembic_version VALUES ('{BASE.id}')", *rows)  # noqa: S608 - ours


NOT_NULL = check("not_null", ["mail"], 'SELECT * FROM users WHERE "mail" IS NULL')
UNIQUE = check(
    "unique", ["mail"], "SELECT mail, count(*) FROM users WHERE mail IS NOT NULL GROUP BY mail HAVING count(*) > 1"
)
FOREIGN = check(
    "foreign_key",
    ["boss"],
    "SELECT here.* FROM users AS here WHERE here.boss IS NOT NULL"
    " AND NOT EXISTS (SELECT FROM users AS there WHERE there.id = here.boss)",
)
TYPE = check("type", ["age"], "SELECT * FROM users WHERE char_length(rtrim(age::text)) > 3")
SECRET = "row-that-nobody-may-see"


@pytest.mark.parametrize(
    "fact,good,bad,violations",
    [
        (NOT_NULL, "(1, 'a', NULL, NULL)", f"(2, NULL, NULL, '{SECRET}'), (3, NULL, NULL, NULL)", 2),
        pytest.param(
            UNIQUE,
            "(1, 'a', NULL, NULL), (2, NULL, NULL, NULL)",
            f"(3, '{SECRET}', 1, ''), (4, '{SECRET}', 1, '')",
            1,
            marks=pytest.mark.stress,
        ),
        pytest.param(FOREIGN, "(1, 'a', 1, NULL)", f"(2, '{SECRET}', 7, NULL)", 1, marks=pytest.mark.stress),
        pytest.param(TYPE, "(1, 'a', NULL, 'abc')", f"(2, 'b', NULL, '{SECRET}')", 1, marks=pytest.mark.stress),
    ],
    ids=["not_null", "unique", "foreign_key", "type"],
)
def test_a_plan_counts_the_rows_that_a_revision_refuses(
    runner: Runner, database: Database, tmp_path: Path, fact: dict[str, Any], good: str, bad: str, violations: int
) -> None:
    at_base(database, f"INSERT INTO users VALUES {good}")  # noqa: S608 - ours
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(fact)})
    plan = {"action": "plan"}

    [passed] = runner.invoke(tree, plan).payload["plan"]
    execute(database, f"INSERT INTO users VALUES {bad}")  # noqa: S608 - ours
    [failed] = runner.invoke(tree, plan).payload["plan"]

    assert [(each["result"], each["violations"]) for each in passed["preflight"]["checks"]] == [("passed", 0)]
    assert passed["preflight"]["verdict"] == "ok"
    assert failed["preflight"]["verdict"] == "fails"
    [found] = failed["preflight"]["checks"]
    assert (found["result"], found["violations"], found["query"]) == ("failed", violations, fact["query"])
    assert SECRET not in "".join((*runner.answers(), *runner.lines()))


@pytest.mark.stress
def test_violations_are_counted_up_to_a_thousand(runner: Runner, database: Database, tmp_path: Path) -> None:
    at_base(database, "INSERT INTO users SELECT n FROM generate_series(1, 3000) AS n")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL)})

    [entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]

    assert entry["preflight"]["checks"][0]["violations"] == 1000


@pytest.mark.stress
def test_a_table_is_shown_with_its_size_here_and_how_long_it_is_blocked(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users SELECT n FROM generate_series(1, 3000) AS n")
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("ANALYZE users")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured()})

    [entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]
    slow = runner.invoke(tree, {"action": "plan"}, PREFLIGHT_MAX_BLOCK_S="0.001").payload["plan"][0]["preflight"]

    [found] = entry["preflight"]["tables"]
    size = query(database, "SELECT pg_total_relation_size('users')")[0][0]
    assert (found["rows"], found["bytes"]) == (3000, size)
    assert (found["lock"], found["blocks"], found["reads_all"]) == ("ACCESS EXCLUSIVE", "reads and writes", True)
    assert 1 < found["estimated_ms"] < 10_000
    assert (entry["preflight"]["verdict"], slow["verdict"]) == ("ok", "slow")


def test_a_check_of_objects_that_an_earlier_pending_revision_changes_has_no_result(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)")
    new = check("not_null", ["x"], "SELECT * FROM made WHERE x IS NULL", table="made")
    tree = recorded(
        tmp_path / "tree",
        [Rev("b2", sql("UPDATE users SET mail = ''")), Rev("c3", sql("SELECT 1")), Rev("d4", sql("SELECT 1"))],
        {
            "b2": measured(tables=[], changes=["users"]),
            "c3": measured(NOT_NULL),
            "d4": measured(new, tables=[table("made")]),
        },
    )

    entries = {each["revision"]: each["preflight"] for each in runner.invoke(tree, {"action": "plan"}).payload["plan"]}

    assert entries["c3"]["checks"][0]["result"] == "depends_on_pending"
    assert entries["d4"]["checks"][0]["result"] == "depends_on_pending"
    assert (entries["d4"]["tables"][0]["rows"], entries["d4"]["verdict"]) == (None, "unknown")


CALLS = check("check", ["mail"], "SELECT * FROM users WHERE NOT (upper(mail) = mail)")
CASTS = check("type", ["age"], "SELECT * FROM users WHERE NOT pg_input_is_valid(age::text, 'years')")


@pytest.mark.parametrize(
    "earlier,fact,depends",
    [
        ({"changed_columns": [["users", "mail"]]}, NOT_NULL, True),
        pytest.param({"changed_columns": [["users", "age"]]}, NOT_NULL, False, marks=pytest.mark.stress),
        ({"schema": {"changed": {"function upper(text)": "another"}}}, CALLS, True),
        pytest.param(
            {"schema": {"changed": {"function lower(text)": "another"}}}, CALLS, False, marks=pytest.mark.stress
        ),
        pytest.param({"schema": {"changed": {"domain years": "another"}}}, CASTS, True, marks=pytest.mark.stress),
    ],
    ids=["a column", "another column", "a function", "another function", "a domain"],
)
def test_a_check_of_values_that_an_earlier_pending_revision_changes_has_no_result(
    runner: Runner, database: Database, tmp_path: Path, earlier: dict[str, Any], fact: dict[str, Any], *, depends: bool
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, 'A', 1, '')", "CREATE DOMAIN years AS text")
    revisions = [Rev("b2", sql("SELECT 1")), Rev("c3", sql("SELECT 1"))]
    facts = {"b2": measured(tables=[], **earlier), "c3": measured(fact)}
    tree = recorded(tmp_path / "tree", revisions, facts)

    [_, entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]

    result, verdict = ("depends_on_pending", "unknown") if depends else ("passed", "ok")
    assert (entry["preflight"]["checks"][0]["result"], entry["preflight"]["verdict"]) == (result, verdict)


def test_changes_of_rows_that_no_check_covers_are_not_called_ok(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, 'a', NULL, NULL)")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL, unchecked=["users"])})

    [entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]
    assert runner.invoke(tree, {"preflight": "enforce"}).payload["revision"] == "b2"

    assert (entry["preflight"]["verdict"], entry["preflight"]["unchecked"]) == ("unknown", ["users"])
    [line] = runner.events("preflight.finished")
    assert "it changes rows of users, and no check shows whether they allow it" in line["message"]


@pytest.mark.stress
def test_a_revision_that_nobody_recorded_has_no_preflight(runner: Runner, database: Database, tmp_path: Path) -> None:
    at_base(database)
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {})
    unrecorded = write_tree(tmp_path / "none", [BASE, Rev("b2", sql("SELECT 1"))])

    for backend in (tree, unrecorded):
        [entry] = runner.invoke(backend, {"action": "plan"}).payload["plan"]
        assert entry["preflight"] is None


def test_a_query_that_takes_too_long_or_would_wait_is_timed_out(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database)
    slow = check("check", ["mail"], "SELECT pg_sleep(60)")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(slow, NOT_NULL)})

    with closing(database.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        [entry] = runner.invoke(tree, {"action": "plan"}, PREFLIGHT_TIMEOUT_MS="300").payload["plan"]

    found = entry["preflight"]
    assert [each["result"] for each in found["checks"]] == ["timed_out", "timed_out"]
    assert found["verdict"] == "unknown"


@pytest.mark.stress
def test_who_holds_a_table_now_is_a_blocker(runner: Runner, database: Database, tmp_path: Path) -> None:
    at_base(database, "INSERT INTO users VALUES (1, 'a', 1, '')")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured()})

    with closing(database.connect()) as report, report.cursor() as cursor:
        report.autocommit = False
        cursor.execute("SET application_name = 'report'")
        cursor.execute("SELECT pg_sleep(1.2) FROM users")
        [entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]
        pid = report.info.backend_pid

    [blocker] = entry["preflight"]["blockers"]
    assert (blocker["pid"], blocker["application_name"], blocker["table"]) == (pid, "report", "users")


def test_a_query_cannot_write(runner: Runner, database: Database, tmp_path: Path) -> None:
    writes = "CREATE FUNCTION grow() RETURNS int LANGUAGE sql AS $$ INSERT INTO users VALUES (9) RETURNING id $$"
    at_base(database, writes)
    hostile = check("check", ["id"], "SELECT public.grow()")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(hostile)})

    runner.invoke(tree, {"action": "plan"})

    assert query(database, "SELECT count(*) FROM users") == [(0,)]


def test_an_upgrade_warns_in_its_log_and_continues(runner: Runner, database: Database, tmp_path: Path) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)")
    revisions = [Rev("b2", sql("SELECT 1")), Rev("c3", sql("SELECT 1"))]
    tree = recorded(tmp_path / "tree", revisions, {"b2": measured(), "c3": measured(NOT_NULL)})

    answer = runner.invoke(tree)

    assert answer.payload["revision"] == "c3"
    lines = {line["revision"]: line for line in runner.events("preflight.finished")}
    assert [(line["verdict"], line["level"]) for line in lines.values()] == [("ok", "INFO"), ("fails", "WARNING")]
    assert "1 row violates its not_null on users" in lines["c3"]["message"]


@pytest.mark.parametrize("how", sampled(["variable", "event"], {"event"}))
def test_an_enforced_preflight_refuses_before_anything_runs(
    runner: Runner, database: Database, tmp_path: Path, how: str
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)")
    revisions = [Rev("b2", sql("CREATE TABLE made (id int)")), Rev("c3", sql("SELECT 1"))]
    tree = recorded(tmp_path / "tree", revisions, {"c3": measured(NOT_NULL)})
    event = {"preflight": "enforce"} if how == "event" else None

    answer = runner.invoke(tree, event, **({"PREFLIGHT": "enforce"} if how == "variable" else {}))

    assert answer.error_type == "PreflightFailed"
    assert "no revision was started, because of revision c3: 1 row violates its not_null" in answer.message
    assert str(NOT_NULL["query"]) in answer.message
    assert query(database, "SELECT to_regclass('made')") == [(None,)]
    assert runner.invoke(tree, {"preflight": "warn"}).payload["revision"] == "c3"


@pytest.mark.stress
def test_a_slow_env_py_leaves_its_share_of_the_time_to_an_enforced_preflight(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL)})
    env_py = tree / "alembic" / "env.py"
    env_py.write_text(f"import time\ntime.sleep(8)\n{env_py.read_text()}")

    # With arguments, only env.py can show its version table.
    answer = runner.start(tree, timeout_s=24, ALEMBIC_X='{"a": "b"}').invoke({"preflight": "enforce"})

    assert answer.error_type == "PreflightFailed", answer.payload


@pytest.mark.stress
def test_an_acknowledged_finding_acknowledges_its_counterpart(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)")
    finding = {"rule": "upgrade-depends-on-data", "severity": "warning", "message": "", "reason": "cleaned up before"}
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL)}, b2=[finding])

    assert runner.invoke(tree, {"preflight": "enforce"}).payload["revision"] == "b2"


@pytest.mark.parametrize("rule", ["require-concurrent-index-creation", "ban-drop-column"])
def test_a_finding_about_something_else_acknowledges_nothing(
    runner: Runner, database: Database, tmp_path: Path, rule: str
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)")
    finding = {"rule": rule, "severity": "error", "message": "", "reason": "nobody works at night"}
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL)}, b2=[finding])

    assert runner.invoke(tree, {"preflight": "enforce"}).error_type == "PreflightFailed"


def test_an_acknowledged_block_is_allowed(runner: Runner, database: Database, tmp_path: Path) -> None:
    at_base(database)
    finding = {"rule": "scan-while-locked", "severity": "error", "message": "", "reason": "nobody works at night"}
    facts = {"b2": measured()}
    bare = recorded(tmp_path / "bare", [Rev("b2", sql("SELECT 1"))], facts)
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], facts, b2=[finding])
    limits = {"PREFLIGHT": "enforce", "PREFLIGHT_MAX_BLOCK_S": "0.001"}

    refused = runner.invoke(bare, **limits)
    answer = runner.invoke(tree, **limits)

    assert refused.error_type == "PreflightFailed"
    assert "longer than PREFLIGHT_MAX_BLOCK_S allows" in refused.message
    assert answer.payload["revision"] == "b2"
    [line] = [line for line in runner.events("preflight.finished") if "acknowledged" in line["message"]]
    assert (line["level"], line["verdict"]) == ("INFO", "slow")


def test_rows_of_a_referenced_table_that_the_revision_adds_are_not_missed(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, 7, NULL)")
    foreign = {**FOREIGN, "reads": ["users", "bosses"]}
    revisions = [Rev("b2", sql("SELECT 1")), Rev("c3", sql("SELECT 1"))]
    facts = {"b2": measured(tables=[], changes=["bosses"]), "c3": measured(foreign)}
    tree = recorded(tmp_path / "tree", revisions, facts)

    [_, entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]

    assert entry["preflight"]["checks"][0]["result"] == "depends_on_pending"


def test_a_large_table_is_sampled_unless_the_preflight_is_enforced(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users SELECT n, 'a' FROM generate_series(1, 3000) AS n")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL, UNIQUE, FOREIGN)})
    plan = {"action": "plan"}

    [sampled] = runner.invoke(tree, plan, PREFLIGHT_MAX_SCAN_MB="0").payload["plan"]
    [whole] = runner.invoke(tree, plan, PREFLIGHT_MAX_SCAN_MB="0", PREFLIGHT="enforce").payload["plan"]

    assert [each["sampled"] for each in sampled["preflight"]["checks"]] == [1, 1, 1]
    assert [each["result"] for each in sampled["preflight"]["checks"]] == ["passed", "failed", "passed"]
    assert [each["result"] for each in whole["preflight"]["checks"]] == ["passed", "failed", "passed"]
    assert not any("sampled" in each for each in whole["preflight"]["checks"])


def test_rows_that_a_policy_hides_are_not_taken_for_none(runner: Runner, database: Database, tmp_path: Path) -> None:
    hidden = ["ALTER TABLE users ENABLE ROW LEVEL SECURITY", "ALTER TABLE users FORCE ROW LEVEL SECURITY"]
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)", *hidden)
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL)})

    [entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]

    assert entry["preflight"]["checks"][0]["result"] == "timed_out"


@pytest.mark.stress
def test_the_log_has_the_estimate_beside_the_real_time(runner: Runner, database: Database, tmp_path: Path) -> None:
    at_base(database, "INSERT INTO users SELECT n FROM generate_series(1, 3000) AS n")
    scan = [{"table": "users", "kind": "scan", "share": 1.0}]
    revisions = [Rev("b2", sql("SELECT 1")), Rev("c3", sql("SELECT 1"))]
    tree = recorded(tmp_path / "tree", revisions, {"b2": measured(work=scan)})

    runner.invoke(tree)

    lines = {line["revision"]: line for line in runner.events("revision.applied")}
    assert 1 <= lines["b2"]["estimated_ms"] < 1000
    assert "estimated_ms" not in lines["c3"], "nobody recorded it"


@pytest.mark.stress
def test_a_preflight_has_no_session_of_its_own(
    runner: Runner, database: Database, tmp_path: Path, postgres_server: Server
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, 'a', NULL, NULL)")
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL)})
    # That of the function, and that of env.py.
    administer(postgres_server, f'ALTER ROLE "{database.user}" CONNECTION LIMIT 2')

    assert runner.invoke(tree, {"preflight": "enforce"}, CONNECT_TIMEOUT_S="2").payload["revision"] == "b2"


@pytest.mark.stress
def test_with_nothing_pending_there_is_no_query(runner: Runner, database: Database, tmp_path: Path) -> None:
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"b2": measured(NOT_NULL)})
    runner.invoke(tree)
    before = len(runner.events("preflight.finished"))

    assert runner.invoke(tree, {"preflight": "enforce"}).payload["applied"] == []
    assert len(runner.events("preflight.finished")) == before
    assert query(database, "SELECT version_num FROM alembic_version") == [("b2",)]


def test_a_table_that_a_tenant_does_not_have_yet_is_not_looked_for_in_public(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, NULL, NULL, NULL)", "CREATE SCHEMA tenant")
    makes = measured(tables=[], schema={"changed": {"table users": "of the tenant"}})
    tree = recorded(tmp_path / "tree", [Rev("b2", sql("SELECT 1"))], {"a1": makes, "b2": measured(NOT_NULL)})

    [_, entry] = runner.invoke(tree, {"action": "plan", "target": {"schema": "tenant"}}).payload["plan"]

    [found], [shown] = entry["preflight"]["checks"], entry["preflight"]["tables"]
    assert (found["result"], found["violations"]) == ("depends_on_pending", None)
    assert (shown["rows"], shown["estimated_ms"], entry["preflight"]["verdict"]) == (None, None, "unknown")


def test_rows_may_be_others_after_a_pending_revision_that_nobody_recorded(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    at_base(database, "INSERT INTO users VALUES (1, 'a', NULL, NULL)")
    revisions = [Rev("b2", sql("UPDATE users SET mail = NULL")), Rev("c3", sql("SELECT 1"))]
    tree = recorded(tmp_path / "tree", revisions, {"c3": measured(NOT_NULL)})

    [_, entry] = runner.invoke(tree, {"action": "plan"}).payload["plan"]

    assert [each["result"] for each in entry["preflight"]["checks"]] == ["passed"]
    assert entry["preflight"]["verdict"] == "unknown"
