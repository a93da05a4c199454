"""The report of a rollout is written, whatever JSON people or other programs put into its objects in S3."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.fleet import page
from lambda_migrate.fleet import report as reports
from lambda_migrate.fleet.folder import BEHIND, FAILED, HALT, MIGRATED, ROLLOUT, Folder, SpoiledError, wave_file
from lambda_migrate.fleet.outcome_reader import observe
from tests.unit.test_counting import item, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON: list[Any] = [
    None,
    True,
    0,
    -1,
    3.5,
    10**30,
    "",
    "x",
    "\ud800",
    [],
    [1],
    ["a"],
    [None],
    [{}],
    {},
    {"a": 1},
    [{"name": 1}],
]
CHECK = {"revision": "r", "check": "unique", "table": "t", "columns": ["a"], "violations": 3}
LONGEST = {"revision": "r", "table": "t", "blocks": "writes", "estimated_ms": 10}
OBJECTS: dict[str, dict[str, Any]] = {
    "preflights/3/fails/10": {"name": "t3", "server": "s", "checks": [CHECK], "longest": LONGEST},
    "schemas/3/different/abc": {"name": "t3", "differences": ["x"], "more": 0, "reason": None},
    HALT: {"why": "stopped", "message": "m"},
}
OPTIONAL = {
    "execution": "arn", "servers": 1, "chosen": None, "excluded": [], "package": "p", "heads": ["h"], "new": [],
    "check": False, "downgrade_to": None, "migrated_by": None,
}  # fmt: skip


def written() -> Folder:
    """Return a plan with an object of each kind."""
    folder = listed(1)
    folder.put(ROLLOUT, {**folder.read(ROLLOUT), **OPTIONAL, "plan": True})
    folder.put_outcome(item(1), FAILED, revision="X", details={"error_type": "X", "message": "m", "runs": 0})
    folder.put_outcome(item(2), MIGRATED, revision="h")
    folder.put_outcome(item(3), BEHIND, revision="h")
    for name, content in OBJECTS.items():
        folder.put(name, content)
    return folder


def changed(content: Any) -> Iterator[Any]:  # noqa: ANN401 - JSON
    """Yield JSON in the place of the content, of each field of it, and of each field of its lists' first elements."""
    yield from JSON
    if isinstance(content, list) and content:
        yield from ([each, *content[1:]] for each in changed(content[0]))
    for name in content if isinstance(content, dict) else ():
        yield {field: value for field, value in content.items() if field != name}
        yield from ({**content, name: value} for value in changed(content[name]))


def targets_of(folder: Folder) -> list[dict[str, Any]]:
    """Return the lines of targets.jsonl, none if rollout.json was changed."""
    try:
        observed = observe(folder)
    except SpoiledError:
        return []
    return [] if observed is None else [*observed.targets()]


NAMES = [key.removeprefix("rollouts/r/") for key in written().bucket.keys("")]


@pytest.mark.parametrize("name,plan", [*product(NAMES, [True]), (ROLLOUT, False), (wave_file(1), False)])
def test_a_report_is_written_whatever_an_object_contains(name: str, *, plan: bool) -> None:
    folder = written()
    rollout = {**folder.read(ROLLOUT), "plan": plan}
    folder.put(ROLLOUT, rollout)

    for content in [*changed(folder.read(name))]:
        folder.put(name, content)
        report = reports.read(folder, stage="dev")
        assert report is not None
        assert "<html" in page.render(report, targets_of(folder))
        json.dumps(reports.shortened(report))
