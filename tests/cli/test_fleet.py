"""`migrate fleet status` shows the revision of every tenant, from the objects of rollouts and plans."""

from __future__ import annotations

import json
import os
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from migrate_cli.rollout.fleet import show_status
from tests.support.rollout_stub import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Ended
    from tests.support.rollout_stub import RolloutStub

    Migrate = Callable[..., Ended]

LONG = "tenants/" + "x" * 100 + "-acme"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutStub]:
    with serve() as stub:
        for name, value in stub.environment().items():
            monkeypatch.setitem(os.environ, name, value)
        yield stub


def leaves(aws: RolloutStub, name: str, day: int, lines: list[dict[str, Any]], **changes: object) -> None:
    """Write the listing and the targets of a rollout that ran on that day."""
    listing = {
        "rollout": name,
        "stage": "dev",
        "plan": False,
        "started": f"2026-11-{day:02}T10:00:00.000Z",
        "targets": len(lines),
        "heads": ["b2"],
        "chosen": None,
        "waves": [],
        **changes,
    }
    aws.put(name, "rollout.json", listing)
    aws.objects[f"rollouts/{name}/targets.jsonl"] = "".join(json.dumps(each) + "\n" for each in lines).encode()


def line(name: str, outcome: str, revision: str | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    where = {"target": {"schema": name}, "server": "db-1", "wave": 1, "duration_ms": 5}
    return {"name": name, **where, "outcome": outcome, "revision": revision, **changes}


def states(ended: Ended) -> dict[str, tuple[str, str | None]]:
    return {each["name"]: (each["state"], each["revision"]) for each in ended.document["targets"]}


def test_each_tenant_has_its_last_outcome_from_whichever_rollout_came_to_it(aws: RolloutStub, migrate: Migrate) -> None:
    leaves(aws, "first", 20, [line(name, "migrated", "a1") for name in ("one", "two", "three", "gone")], heads=["a1"])
    failed = line("two", "failed", error_type="LockTimeout")
    leaves(aws, "second", 21, [line("one", "migrated", "b2"), failed, line("three", "left"), line("new", "left")])
    leaves(aws, "some", 22, [line("two", "migrated", "b2")], chosen=["two"])

    ended = migrate("fleet", "status", "--stage", "dev", "--json")

    assert states(ended) == {
        "new": ("unknown", None),
        "three": ("behind", "a1"),
        "one": ("current", "b2"),
        "two": ("current", "b2"),
    }
    assert ended.document["counts"] == {"targets": 4, "failed": 0, "behind": 1, "unknown": 1, "current": 2}
    assert [each["rollout"] for each in ended.document["targets"]] == ["first", None, "second", "some"]


def test_a_tenant_at_the_head_of_an_older_package_is_behind(aws: RolloutStub, migrate: Migrate) -> None:
    leaves(aws, "old", 20, [line("one", "current", "a1"), line("two", "migrated", "a1")], heads=["a1"])
    leaves(aws, "plan", 21, [line("two", "behind", "a1")], plan=True, chosen=["two"])

    assert {state for state, _ in states(migrate("fleet", "status", "--stage", "dev", "--json")).values()} == {"behind"}


def test_the_table_has_names_in_full_at_80_columns_and_is_filtered(aws: RolloutStub, migrate: Migrate) -> None:
    failed = line(LONG, "failed", error_type="MigrationFailed")
    leaves(aws, "all", 21, [line("one", "current", "b2"), line("two", "behind", "a1"), failed])

    screen = StringIO()
    document = migrate("fleet", "status", "--stage", "dev", "--json").document
    show_status(document, 100, Console(file=screen, width=80))
    shown = screen.getvalue()

    assert max(map(len, shown.splitlines())) <= 80
    rows = [row.split()[0] if row[:1].strip() else "" for row in shown.splitlines()]
    assert "".join(part for part in rows if part.startswith(("tenants", "x"))) == LONG
    assert shown.index("-acme") < shown.index("two") < shown.index("one")
    assert "3 targets: 1 failed, 1 behind, 1 current. Head: b2, according to all." in shown
    assert states(migrate("fleet", "status", "--stage", "dev", "--only", "behind", "--json")) == {
        "two": ("behind", "a1")
    }
    assert states(migrate("fleet", "status", "--stage", "dev", "--filter", "ACME", "--json")) == {
        LONG: ("failed", None)
    }
    assert "and 2 more" in migrate("fleet", "status", "--stage", "dev", "--limit", "1").out


def test_a_rollout_without_a_report_is_read_from_its_outcomes(aws: RolloutStub, migrate: Migrate) -> None:
    wave = {"wave": 1, "count": 2, "tolerated_failures": 0, "canary": False}
    leaves(aws, "aborted", 21, [], targets=2, waves=[wave])
    item = {"server": "s", "wave": 1, "target": {"schema": "x"}}
    aws.put("aborted", "wave-1.json", [{**item, "number": 1, "name": "one"}, {**item, "number": 2, "name": "two"}])
    aws.put("aborted", "outcomes/1/migrated/1/5/b2", {})
    # What somebody has changed is no list of targets, and no reason to fail.
    aws.objects["rollouts/aborted/targets.jsonl"] = b'{"name": 7}'
    aws.objects["rollouts/spoiled/rollout.json"] = b"[]"

    found = states(migrate("fleet", "status", "--stage", "dev", "--json"))

    assert found == {"one": ("current", "b2"), "two": ("unknown", None)}


def test_a_stage_without_a_rollout_shows_the_command_to_start_one(aws: RolloutStub, migrate: Migrate) -> None:
    assert aws.objects == {}
    ended = migrate("fleet", "status", "--stage", "dev")

    assert ended.code == 2
    assert "migrate rollout --plan --stage dev" in ended.err
