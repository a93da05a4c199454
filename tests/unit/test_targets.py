"""The order of a rollout's targets, and the report of their outcomes."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.fleet.choosing import parse_options
from lambda_migrate.fleet.folder import Outcome
from lambda_migrate.fleet.report import shortened, summarize
from lambda_migrate.fleet.target import failure_of, is_between
from lambda_migrate.fleet.targets import check_size
from lambda_migrate.fleet.waves import (
    Gate,
    Rules,
    Tenant,
    Wave,
    arrange,
    gate_of_the_new,
    in_order,
    items_of,
    share,
)
from lambda_migrate.invocation.errors import ConfigurationError, InvalidRequest
from lambda_migrate.invocation.request import parse_request
from lambda_migrate.revisions.manifest import PackagedRevision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHARES = st.integers(1, 40) | st.integers(0, 100).map(lambda percent: f"{percent}%")
TENANTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=60).map(
    lambda places: [Tenant(f"t{n}", {"schema": f"t{n}"}, *place) for n, place in enumerate(places)]
)
RULES = st.builds(
    Rules,
    canaries=st.integers(0, 5) | st.integers(0, 100).map(lambda percent: f"{percent}%"),
    waves=st.lists(SHARES, max_size=4),
    concurrency=st.integers(1, 50),
    per_server=st.integers(1, 20),
    tolerated_failures=SHARES,
)


def names(tenants: Sequence[Tenant]) -> list[str]:
    return [tenant.name for tenant in tenants]


def all_of(waves: Sequence[Wave]) -> list[Tenant]:
    return [tenant for wave in waves for tenant in wave.tenants]


# --- the order ---


@given(TENANTS, RULES)
def test_every_target_is_in_exactly_one_wave_and_no_wave_is_empty(tenants: list[Tenant], rules: Rules) -> None:
    waves = arrange(tenants, rules)

    assert sorted(names(all_of(waves))) == sorted(names(tenants))
    assert [wave.number for wave in waves] == list(range(1, len(waves) + 1))
    assert all(wave.tenants for wave in waves)


@given(TENANTS, RULES)
def test_priorities_never_fall_from_the_first_canary_to_the_last_target(tenants: list[Tenant], rules: Rules) -> None:
    priorities = [tenant.priority for tenant in all_of(arrange(tenants, rules))]

    assert priorities == sorted(priorities)


@given(TENANTS, RULES)
def test_only_the_first_wave_has_canaries_and_of_those_none_may_fail(tenants: list[Tenant], rules: Rules) -> None:
    first, *others = arrange(tenants, rules)

    assert not any(wave.canary for wave in others)
    assert first.canary is (share(rules.canaries, len(tenants), up=True) > 0)  # type: ignore[arg-type]
    if first.canary:
        assert (first.tolerated_failures, len(first.tenants)) == (0, share(rules.canaries, len(tenants), up=True))  # type: ignore[arg-type]


@given(TENANTS, RULES)
def test_no_more_are_at_work_than_the_servers_of_a_wave_bear(tenants: list[Tenant], rules: Rules) -> None:
    for wave in arrange(tenants, rules):
        servers = {tenant.server for tenant in wave.tenants}
        assert 1 <= wave.concurrency <= min(rules.concurrency, rules.per_server * len(servers))
        assert 0 <= wave.tolerated_failures <= len(wave.tenants)


@given(TENANTS)
def test_servers_are_evenly_mixed_from_the_beginning_to_the_end(tenants: list[Tenant]) -> None:
    equal = [Tenant(tenant.name, tenant.target, tenant.server) for tenant in tenants]
    totals = Counter(tenant.server for tenant in equal)
    seen: Counter[str] = Counter()

    for place, tenant in enumerate(in_order(equal), start=1):
        seen[tenant.server] += 1
        for server, total in totals.items():
            # At any point each server has had its part of what is done, give or take one target of each.
            assert abs(seen[server] - place * total / len(equal)) <= len(totals)


def test_canaries_by_name_come_before_whatever_else_there_is() -> None:
    tenants = [Tenant(name, {}, priority=place) for place, name in enumerate("abcd")]

    waves = arrange(tenants, Rules(canaries=["d", "b"]))

    assert [names(wave.tenants) for wave in waves] == [["b", "d"], ["a", "c"]]
    with pytest.raises(ConfigurationError, match="no target 'x' to be a canary"):
        arrange(tenants, Rules(canaries=["x"]))


def test_waves_are_parts_of_what_the_canaries_leave_and_the_last_one_is_the_rest() -> None:
    tenants = [Tenant(f"{n:02}", {}, "one") for n in range(23)]

    waves = arrange(tenants, Rules(canaries=3, waves=["10%", 5], tolerated_failures="20%"))

    assert [(len(wave.tenants), wave.tolerated_failures) for wave in waves] == [(3, 0), (2, 0), (5, 1), (13, 2)]


def gates(waves: Sequence[Wave]) -> list[tuple[str, int, bool]]:
    return [(wave.gate.kind, wave.gate.looks * wave.gate.look_s, wave.gate.soaks) for wave in waves]


def test_groups_come_in_their_order_each_with_its_waves_and_those_of_no_group_last() -> None:
    tenants = [Tenant(f"{n}", {}, priority=-n, group=("eu", "us", "", "gone")[n % 4]) for n in range(13)]

    waves = arrange(tenants, Rules(canaries=["7"], groups=["us", "eu"], waves=["50%"], between_groups="approval"))

    assert [wave.group for wave in waves] == ["", "us", "us", "eu", "eu", "", ""]
    # "50%" of each group, rounded up, by priority.
    assert [names(wave.tenants) for wave in waves] == [
        ["7"], ["9", "5"], ["1"], ["12", "8"], ["4", "0"], ["11", "10", "6"], ["3", "2"],
    ]  # fmt: skip
    assert [kind for kind, _, _ in gates(waves)] == ["none", "none", "none", "approval", "none", "approval", "none"]


@pytest.mark.parametrize(
    "rules,expected",
    [
        ({}, [("none", 0, False)] * 3),
        ({"between_waves": 90}, [("none", 0, False), ("none", 120, False), ("none", 120, False)]),
        ({"between_waves": 20}, [("none", 0, False), ("none", 20, False), ("none", 20, False)]),
        ({"soak_s": 600}, [("none", 0, False), ("none", 600, True), ("none", 0, False)]),
        (
            {"soak_s": 60, "between_waves": "approval"},
            [("none", 0, False), ("approval", 60, True), ("approval", 0, False)],
        ),
    ],
)
def test_between_two_waves_are_the_pause_and_the_approval_that_the_settings_ask_for(
    rules: dict[str, Any], expected: list[tuple[str, int, bool]]
) -> None:
    tenants = [Tenant(f"{n}", {}) for n in range(5)]

    assert gates(arrange(tenants, Rules(canaries=1, waves=[2], **rules))) == expected


WEEK = 604_800


def of_groups(**rules: object) -> list[Wave]:
    """The waves of 50 groups with up to three waves each."""
    tenants = [Tenant(f"{n}", {}, group=f"g{n % 50}") for n in range(300)]
    return arrange(tenants, Rules(groups=[f"g{n}" for n in range(50)], **rules))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "waves",
    [
        arrange([Tenant("a", {}), Tenant("b", {})], Rules(soak_s=WEEK)),
        of_groups(waves=[1, 2], between_waves=WEEK, soak_s=WEEK),
        of_groups(between_groups=WEEK),
    ],
    ids=["soak", "waves", "groups"],
)
def test_no_pause_is_shortened_and_all_pauses_fit_into_the_history_of_one_execution(waves: list[Wave]) -> None:
    assert max(wave.gate.seconds for wave in waves) < 1.01 * WEEK
    assert {wave.gate.seconds >= WEEK for wave in waves if wave.gate.seconds} == {True}
    check_size([PART] * len(waves), [wave.gate for wave in waves], {})


def test_a_pause_before_the_new_targets_is_looked_through_seldom_if_it_is_long() -> None:
    gate = gate_of_the_new(Rules(between_waves=WEEK))

    assert (gate.seconds >= WEEK, gate.events < 2_000) == (True, True)
    assert gate_of_the_new(Rules(between_waves=600)).look_s == 60


PART = {"key": f"rollouts/{'r' * 80}/wave-100.json", "concurrency": 10, **Gate().as_json()}


@pytest.mark.parametrize(
    "parts,gates,given",
    [
        ([PART] * 2_551, [], {}),
        ([PART] * 900, [Gate("approval")] * 900, {}),
        ([PART], [Gate("none", 1_400, 60)], {}),
        ([PART] * 500, [], {"targets": ["tenant"] * 20_000}),
    ],
    ids=["parts", "approvals", "pauses", "input"],
)
def test_a_rollout_that_one_execution_cannot_have_is_refused(
    parts: list[dict[str, Any]], gates: list[Gate], given: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="too large for one execution"):
        check_size(parts, gates, given)
    check_size(parts[:400], gates[:400] if len(gates) > 1 else [], {})


@pytest.mark.parametrize(
    "given,part",
    [
        ({"exclude": []}, "exclude must be a list of names"),
        ({"exclude": ["a"], "approved": "p"}, "approved runs a plan"),
        ({"downgrade_to": "b2"}, "need each other"),
        ({"downgrade_to": "-1", "migrated_by": "r"}, "base or a revision id"),
        ({"downgrade_to": "head", "migrated_by": "r"}, "base or a revision id"),
        ({"downgrade_to": "b2", "migrated_by": "r", "plan": True}, "leave plan"),
        ({"downgrade_to": "b2", "migrated_by": "../r"}, "migrated_by must be the name"),
    ],
)
def test_an_input_that_contradicts_itself_is_refused(given: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidRequest, match=part):
        parse_options(given)


@pytest.mark.parametrize(
    "given,whole,up,number",
    [(3, 10, True, 3), (30, 10, True, 10), ("5%", 10, True, 1), ("5%", 10, False, 0), ("29%", 100, False, 29)],
)
def test_a_share_is_a_number_or_a_percentage(given: int | str, whole: int, up: bool, number: int) -> None:  # noqa: FBT001
    assert share(given, whole, up=up) == number


def test_a_wave_is_written_as_the_json_that_a_distributed_map_reads() -> None:
    (wave,) = arrange([Tenant("é", {"schema": 'a"b'}, "s"), Tenant("b", {})], Rules(canaries=0))

    assert json.loads(items_of(wave, 7)) == [
        {"number": 7, "name": "é", "server": "s", "wave": 1, "target": {"schema": 'a"b'}},
        {"number": 8, "name": "b", "server": "", "wave": 1, "target": {}},
    ]


@pytest.mark.stress
def test_a_hundred_thousand_targets_are_put_in_order(figure: Callable[[str], None]) -> None:
    tracemalloc.start()
    tenants = [Tenant(f"tenant-{n:06}", {"secret_id": f"tenants/{n:06}"}, f"db-{n % 40}") for n in range(100_000)]
    before = time.perf_counter()
    waves = arrange(tenants, Rules(canaries="1%", waves=["10%"], concurrency=200))
    size = sum(len(items_of(wave, 1)) for wave in waves)
    took, peak = time.perf_counter() - before, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    figure(f"100,000 targets in order in {took:.1f} s, {peak / 1e6:.0f} MB of memory, {size / 1e6:.1f} MB in S3")
    assert sum(len(wave.tenants) for wave in waves) == 100_000
    # What is left of 512 MB when the function has loaded its libraries.
    assert peak < 350e6


# --- what the state machine says ---

ITEM = {"number": 1, "name": "a", "server": "s", "wave": 1, "target": {}}
PART = {"name": "r", "item": ITEM}


def part(item: dict[str, Any]) -> dict[str, Any]:
    """Return the event of a part of a rollout, with a changed item."""
    return {"rollout": {"name": "r", "item": {**ITEM, **item}, "runs": 0}}


@pytest.mark.parametrize(
    "event",
    [
        {"action": "upgrade", "target": {"schema": "a"}, "rollout": {**PART, "runs": 0, "looks": 3}},
        # From a state machine that was deployed before this function.
        {"action": "upgrade", "target": {"schema": "a"}, "rollout": {**PART, "runs": 0}},
        {"action": "targets", "rollout": {"name": "r", "execution": "arn", "started": "now", "instead_of": ""}},
        {"action": "record", "rollout": {"name": "r", "item": ITEM, "runs": 1, "error": {}}},
        {"action": "report", "rollout": {"name": "r", "problem": None}},
        {"action": "downgrade", **part({"revision": "a1", "confirm": "b2"})},
        {"action": "ask", "rollout": {"name": "r", "key": "wave-2.json", "token": "t"}},
        {"action": "halt", "rollout": {"name": "r", "message": "alarm"}},
    ],
)
def test_the_state_machines_requests_are_understood(event: dict[str, Any]) -> None:
    request = parse_request(event)

    assert (request.action, request.rollout) == (event["action"], event["rollout"])


@pytest.mark.parametrize(
    "event,part",
    [
        ({"action": "targets"}, "rollout must be a JSON object, not null"),
        ({"action": "report", "rollout": {}}, "rollout.name must be a string, not null"),
        ({"action": "report", "rollout": {"name": "a/b"}}, "rollout.name must be the name of an execution"),
        ({"action": "report", "rollout": {"name": "a", "x": 1}}, "unknown field 'x' in rollout"),
        ({"action": "report", "rollout": {"name": "a"}, "target": {}}, "unknown field 'target' for action report"),
        ({"action": "stamp", "revision": "a1", "rollout": {"name": "a"}}, "unknown field 'rollout'"),
        # Where to, and where the database must be, stand in the item.
        ({"action": "downgrade", "revision": "-1", **part({"revision": "a1"})}, "belong in rollout.item"),
        ({"action": "downgrade", **part({})}, "downgrade needs a revision"),
        (
            {"action": "downgrade", **part({"revision": "head", "confirm": "b2"})},
            "revision must be base, a revision id",
        ),
        ({"rollout": {**PART, "runs": True}}, "rollout.runs must be a number, not a boolean"),
        ({"rollout": {**PART, "runs": -1}}, "rollout.runs must be a number from 0"),
        ({"rollout": {**PART, "runs": 0, "looks": 10**12}}, "rollout.looks must be a number from 0"),
        (part({"number": "1"}), "rollout.item.number must be a number, not a string"),
        (part({"wave": None}), "rollout.item.wave must be a number, not null"),
        (part({"name": "x" * 300_000}), "rollout.item.name must be a shorter text"),
        (part({"target": {"table": "x"}}), "unknown field 'table' in target"),
        (part({"target": {"schema": 7}}), "target.schema must be a text"),
        (part({"extra": 1}), "unknown field 'extra' in rollout.item"),
    ],
)
def test_anything_else_about_a_rollout_is_refused(event: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(event)

    assert part in str(refused.value)


def test_all_failed_is_no_success_whatever_is_tolerated() -> None:
    wave = {"wave": 1, "count": 2, "tolerated_failures": 2, "canary": False}
    rollout = {**ROLLOUT, "targets": 2, "waves": [wave]}
    ended = datetime(2026, 11, 23, 10, 1, tzinfo=timezone.utc)
    outcomes = [outcome(1, 1, "failed"), outcome(1, 2, "failed")]
    names = {1: "a", 2: "b"}

    report = summarize(rollout, outcomes, ended=ended, halt=None, problem=None, failures=[BAD] * 2, names=names)

    assert (report["status"], report["message"][:23]) == ("failed", "all of 2 targets failed")


def test_a_failure_is_the_error_of_lambda_or_of_a_service() -> None:
    ours = {"Error": "MigrationFailed", "Cause": '{"errorMessage": "no\\n table", "errorType": "MigrationFailed"}'}

    assert failure_of(ours) == {"error_type": "MigrationFailed", "message": "no table"}
    assert failure_of({"Error": "States.Timeout", "Cause": ""}) == {"error_type": "States.Timeout", "message": ""}
    assert failure_of({"Error": "Lambda.X", "Cause": "[1]"}) == {"error_type": "Lambda.X", "message": "[1]"}


GRAPH = {
    name: PackagedRevision(name, below, needs, (), "", "", "")
    for name, below, needs in (
        ("a1", (), ()),
        ("b2", ("a1",), ()),
        ("c3", ("b2",), ()),
        ("d4", ("c3",), ()),
        ("x1", (), ("b2",)),
        ("other", ("a1",), ()),
    )
}


@pytest.mark.parametrize(
    "at,lower,expected",
    [
        (("c3",), "b2", True),
        (("c3",), "base", True),
        (("a1",), "b2", False),
        (("other",), "a1", False),
        (("unknown",), "a1", False),
        ((), "base", False),
        (("c3", "x1"), "b2", False),
    ],
)
def test_a_target_that_is_taken_back_in_part_is_between_the_two_revisions_of_the_packaged_tree(
    at: tuple[str, ...], lower: str, *, expected: bool
) -> None:
    assert is_between(GRAPH, at, upper=["d4"], lower=lower) is expected


def test_of_several_heads_a_database_is_between_if_all_of_its_own_are() -> None:
    assert is_between(GRAPH, ("c3", "x1"), upper=["d4", "x1"], lower="b2")


# --- the report ---

ROLLOUT = {
    "rollout": "r",
    "stage": "dev",
    "plan": False,
    "started": "2026-11-23T10:00:00.000Z",
    "targets": 5,
    "waves": [
        {"wave": 1, "count": 1, "tolerated_failures": 0, "canary": True},
        {"wave": 2, "count": 4, "tolerated_failures": 1, "canary": False},
    ],
}
BAD = {"name": "c", "error_type": "MigrationFailed", "message": "no"}


def outcome(wave: int, number: int, what: str, revision: str = "b2") -> Outcome:
    return Outcome(wave, number, what, 10 * number, revision, f"key-{number}")


def summary(outcomes: list[Outcome], **given: Any) -> dict[str, Any]:  # noqa: ANN401 - as summarize has them
    given = {"halt": None, "problem": None, "failures": [BAD] * sum(o.outcome == "failed" for o in outcomes), **given}
    ended = datetime(2026, 11, 23, 10, 1, tzinfo=timezone.utc)
    return summarize(ROLLOUT, outcomes, ended=ended, names={n: f"t{n}" for n in range(9)}, **given)


STOP = {"why": "stopped", "message": "stopped by Kim"}
DONE = [outcome(1, 1, "migrated"), outcome(2, 2, "migrated"), outcome(2, 3, "current"), outcome(2, 4, "current", "a1")]


def test_a_report_counts_each_wave_and_the_spread_of_revisions() -> None:
    report = summary([*DONE, outcome(2, 5, "failed")])

    assert (report["status"], report["duration_ms"]) == ("succeeded", 60_000)
    assert report["counts"] == {"targets": 5, "migrated": 2, "current": 2, "behind": 0, "failed": 1, "left": 0}
    assert [wave["failed"] for wave in report["waves"]] == [0, 1]
    assert report["revisions"] == {"b2": 3, "a1": 1}
    assert report["slowest"][0] == {"name": "t5", "duration_ms": 50}
    assert "failures_truncated" not in report


def test_the_answer_with_a_report_stays_small_whatever_was_left_out_or_is_new() -> None:
    wave = {"wave": 1, "canary": False, "targets": 1, "tolerated_failures": 0}
    excluded = {"name": "n" * 512, "reason": "r" * 200}
    long = {"waves": [wave] * 900, "excluded": [excluded] * 2_000, "new": ["n" * 512] * 2_000}

    short = shortened({**summary([]), **long})

    assert len(json.dumps(short)) < 50_000
    assert short["new_truncated"] == "10 of 2000 shown"
    assert short["waves_truncated"] == "50 of 900 shown"
    assert "waves_truncated" not in shortened(summary([]))


@pytest.mark.parametrize(
    "outcomes,given,status,part",
    [
        ([*DONE[:1]], {}, "stopped", "the execution ended before 4 of 5 targets"),
        (
            [outcome(1, 1, "failed")],
            {},
            "failed",
            "1 of 1 target in the canaries failed, 0 are tolerated; 4 of 5 were ",
        ),
        (
            [outcome(1, 1, "failed"), *DONE[1:], outcome(2, 5, "current")],
            {},
            "failed",
            "0 are tolerated; the first is c",
        ),
        (
            [outcome(1, 1, "failed"), *DONE[1:]],
            {},
            "failed",
            "1 of 1 target in the canaries failed, 0 are tolerated; 1 of 5 was not started",
        ),
        (DONE[:2], {"halt": {"why": "stopped", "message": "stopped by Kim"}}, "stopped", "stopped by Kim; 3 of 5"),
        (DONE, {"problem": {"Error": "States.Runtime", "Cause": "oh"}}, "failed", "States.Runtime: oh"),
        # A failed canary is a failure also if a stop was asked for, and a stop after the last target is none.
        ([outcome(1, 1, "failed")], {"halt": STOP}, "failed", "target in the canaries failed"),
        ([*DONE, outcome(2, 5, "current")], {"halt": STOP}, "succeeded", "5 targets"),
        (DONE[:1], {"halt": {"why": "deployed", "message": "deployed"}}, "failed", "deployed; 4 of 5"),
    ],
)
def test_a_report_says_how_it_ended(outcomes: list[Outcome], given: dict[str, Any], status: str, part: str) -> None:
    report = summary(outcomes, **given)

    assert report["status"] == status
    assert part in report["message"]
