"""A target of a rollout takes the number of states that docs/scale.md uses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.scale import IMPLEMENTATION
from infra.names import Names
from tests.infra.synthesis import ACCOUNT, REGION, resolved, synthesize

if TYPE_CHECKING:
    from pathlib import Path

_EVENTS = {"Task": 5, "Choice": 2, "Pass": 2}
_BEGIN_AND_END = 2

pytestmark = pytest.mark.xdist_group("rollout-template")


def test_a_target_takes_the_states_and_events_that_the_page_counts(tmp_path: Path) -> None:
    stage = {"account": ACCOUNT, "region": REGION, "database": {"secret": "a/b"}, "rollout": {}}
    stack = synthesize(tmp_path, {"scale": (Names("template-saas", "api", "scale"), stage)})["scale"]
    anything = {f"{name}{part}": "x" for name in stack.resources for part in ("", ".Arn")}
    machine = json.loads(resolved(stack.machine["DefinitionString"], {"AWS::StackId": "x", **anything}))
    [wave] = [state for state in machine["States"].values() if state["Type"] == "Map"]
    child = wave["ItemProcessor"]

    way = []
    name = child["StartAt"]
    while name:
        state = child["States"][name]
        way.append(state["Type"])
        name = state["Default"] if state["Type"] == "Choice" else state.get("Next")

    assert len(way) == IMPLEMENTATION.states
    assert _BEGIN_AND_END + sum(_EVENTS[kind] for kind in way) == IMPLEMENTATION.child_events
