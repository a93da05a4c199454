"""A secret in a revision's statement appears in no log line, no plan and no error."""

from __future__ import annotations

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
        f"ALTER ROLE nobody_at_all ENCRYPTED PASSWORD E'it\\'s {MARKER}'",
        f"SELECT no_such_function('host=db user=a password={MARKER}')",
        f"SELECT no_such_function('password=''{MARKER} x'' user=a')",
        f"SELECT no_such_function('postgresql://someone:{MARKER}@db/app')",
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
