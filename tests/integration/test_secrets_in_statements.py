"""A secret in a revision's statement appears in no log line, no plan and no error."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

import pytest

from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.functions import Runner

MARKER = "hunter22"


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE ROLE someone LOGIN PASSWORD '{MARKER}'",
        pytest.param(f"ALTER ROLE nobody_at_all ENCRYPTED PASSWORD E'it\\'s {MARKER}'", marks=pytest.mark.stress),
        pytest.param(f"SELECT no_such_function('host=db user=a password={MARKER}')", marks=pytest.mark.stress),
        pytest.param(f"SELECT no_such_function('password=''{MARKER} x'' user=a')", marks=pytest.mark.stress),
        pytest.param(f"SELECT no_such_function('postgresql://someone:{MARKER}@db/app')", marks=pytest.mark.stress),
    ],
)
def test_it_appears_nowhere(runner: Runner, tmp_path: Path, statement: str) -> None:
    body = f"import logging; logging.getLogger('app').warning({statement!r})\nprint({statement!r})\n{sql(statement)}"
    function = runner.start(write_tree(tmp_path / "tree", [Rev("a1", body)]))

    planned = function.invoke({"action": "plan"}).payload["plan"][0]["sql"]
    failed = function.invoke()

    assert failed.error_type == "MigrationFailed"
    assert "***" in planned
    [line] = runner.events("migration.failed")
    assert "***" in line["statement"]
    everything = [*runner.lines(), *runner.answers()]
    assert len([text for text in everything if "***" in text]) >= 4
    assert not [text for text in everything if MARKER in text]


# SQLAlchemy's text of each of these errors has the statement and its parameters.
OTHER_CONNECTION = """
with sa.create_engine(os.environ["DATABASE_URL"]).begin() as other:
    other.execute(sa.text("INSERT INTO missing VALUES (:name)"), {"name": "MARKER"})
""".replace("MARKER", MARKER)
UNSENT = f"""
users = sa.table("users", sa.column("name", sa.Text), sa.column("tags", sa.JSON))
op.get_bind().execute(users.insert(), {{"name": "{MARKER}", "tags": {{*()}}}})
"""
WRAPPED = f"""
try:
{indent(OTHER_CONNECTION, "    ")}
except Exception as error:
    raise RuntimeError(f"no users: {{error}}")
"""


@pytest.mark.parametrize(
    "body,words",
    [
        pytest.param(
            OTHER_CONNECTION, 'relation "missing" does not exist', id="other connection", marks=pytest.mark.stress
        ),
        pytest.param(UNSENT, "not JSON serializable", id="unsent"),
        pytest.param(WRAPPED, 'relation "missing" does not exist', id="wrapped"),
    ],
)
def test_parameters_of_a_statement_appear_nowhere(runner: Runner, tmp_path: Path, body: str, words: str) -> None:
    function = runner.start(write_tree(tmp_path / "tree", [Rev("a1", body)]))

    planned = function.invoke({"action": "plan"}).payload["plan"][0]
    failed = function.invoke()

    assert words in planned.get("error", words)
    assert words in failed.message
    assert not [text for text in [*runner.lines(), *runner.answers()] if MARKER in text]
