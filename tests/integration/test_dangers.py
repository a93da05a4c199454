"""Pending revisions that require a snapshot, and the snapshot in a run's result and log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ledger import write_ledger
from tests.support.samples import sampled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.functions import Runner

ASK = {"action": "dangers", "rollout": {"name": "an-execution"}}


def finding(severity: str, rule: str = "drops-a-column", **more: str) -> dict[str, Any]:
    return {"rule": rule, "severity": severity, "message": "it does", **more}


def record(tree: Path, revisions: dict[str, Any]) -> None:
    """Write reviewed.json as `migrate review --record` does."""
    [file] = [path.parent for path in tree.rglob("env.py")]
    (file / "reviewed.json").write_text(json.dumps({"revisions": revisions}))


def test_a_revision_with_a_finding_is_dangerous_acknowledged_or_not_and_so_is_one_that_nobody_has_reviewed(
    runner: Runner, tmp_path: Path
) -> None:
    tree = write_ledger(tmp_path / "tree", 5)
    record(
        tree,
        {
            "r01": {"findings": []},
            "r02": {"findings": [finding("note")]},
            "r03": {"findings": [finding("warning", "blocks-writes"), finding("error", reason="agreed with support")]},
            "r04": {"findings": [finding("error")], "reviewed": False},
        },
    )

    answer = runner.invoke(tree, ASK).payload

    assert answer["dangerous"] is True
    assert answer["dangers"] == [
        {"revision": "r03", "reviewed": True, "rules": ["blocks-writes", "drops-a-column"]},
        {"revision": "r04", "reviewed": False, "rules": []},
        {"revision": "r05", "reviewed": False, "rules": []},
    ]


@pytest.mark.stress
def test_applied_revisions_are_no_danger(runner: Runner, tmp_path: Path) -> None:
    tree = write_ledger(tmp_path / "tree", 2)
    record(tree, {"r01": {"findings": [finding("error")]}, "r02": {"findings": []}})
    function = runner.start(tree)
    function.invoke({"revision": "r01"})

    answer = function.invoke(ASK).payload

    assert (answer["dangerous"], answer["dangers"]) == (False, [])


@pytest.mark.stress
def test_the_log_and_the_result_have_the_identifier_of_the_snapshot(runner: Runner, tmp_path: Path) -> None:
    tree = write_ledger(tmp_path / "tree", 1)

    answer = runner.invoke(tree, {"snapshot": "template-saas-api-migrate-dev-1"})

    assert answer.payload["snapshot"] == "template-saas-api-migrate-dev-1"
    assert {line["snapshot"] for line in runner.events()} == {"template-saas-api-migrate-dev-1"}


@pytest.mark.stress
def test_a_run_without_one_has_none(runner: Runner, tmp_path: Path) -> None:
    answer = runner.invoke(write_ledger(tmp_path / "tree", 1), {"snapshot": ""})

    assert "snapshot" not in answer.payload
    assert not [line for line in runner.events() if "snapshot" in line]


@pytest.mark.parametrize("snapshot", sampled([7, "two words", "-x", "x" * 600], {"two words"}))
def test_an_invalid_identifier_is_refused(runner: Runner, tmp_path: Path, snapshot: object) -> None:
    answer = runner.invoke(write_ledger(tmp_path / "tree", 1), {"snapshot": snapshot})

    assert answer.error_type == "InvalidRequest"
