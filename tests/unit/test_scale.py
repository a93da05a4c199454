"""docs/scale.md contains the numbers that benchmarks/scale.py computes, and these are consistent."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from benchmarks import scale
from benchmarks.report import RESULTS
from benchmarks.scale import ASSUMED, IMPLEMENTATION, PUBLISHED, Measured, Plan
from infra.settings.rollout import RolloutSettings
from infra.stages import Stage
from lambda_migrate.fleet import places

if TYPE_CHECKING:
    from pathlib import Path

MEASURED = Measured(function_s=0.08, server_s=0.04)


def measured() -> Measured:
    found = scale.measured_in(json.loads(RESULTS.read_text(encoding="utf-8")))
    assert found is not None
    return found


def test_the_page_has_the_numbers_computed_from_the_results() -> None:
    written = scale.PAGE.read_text(encoding="utf-8")

    assert written.partition(scale.BEGIN)[2].partition(scale.END)[0] == f"\n{scale.section(measured())}"


def test_the_page_keeps_what_people_wrote_around_the_numbers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{scale.BEGIN}\nSTALE\n{scale.END}\n\nAfter.\n")

    scale.write(page=page)

    text = page.read_text()
    assert text.startswith("Before.\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert "STALE" not in text


def test_without_results_the_page_stays_as_it_is(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    results.write_text(json.dumps({"questions": {}}))
    page.write_text("As it was.")

    scale.write(results, page)

    assert page.read_text() == "As it was."


def test_every_published_number_stands_on_the_page_with_its_source() -> None:
    facts = scale.PAGE.read_text(encoding="utf-8").partition("## Where the facts are from")[2]
    texts = {
        "bytes_a_connection": "9531392",
        "most_connections": "5000)",
    }

    for name, value in asdict(PUBLISHED).items():
        assert texts.get(name, f"{value:,}") in facts


def test_the_assumptions_about_settings_and_the_function_match_the_code() -> None:
    fields = RolloutSettings.model_fields
    largest = {
        name: next(each.le for each in fields[name].metadata if hasattr(each, "le")) for name in ("concurrency",)
    }

    assert fields["concurrency"].default == IMPLEMENTATION.default_concurrency
    assert fields["per_server"].default == IMPLEMENTATION.default_per_server
    assert largest["concurrency"] == IMPLEMENTATION.most_concurrency
    assert (
        max(each.max_length for each in fields["waves"].metadata if hasattr(each, "max_length")) + 1
        == IMPLEMENTATION.most_waves
    )
    assert Stage.model_fields["memory_mb"].default == ASSUMED.memory_mb
    assert IMPLEMENTATION.readers == places._READERS  # noqa: SLF001 - what the page computes with


@pytest.mark.parametrize("size", scale.SIZES)
def test_the_first_bottleneck_determines_the_time(size: int) -> None:
    plan = scale.as_it_comes(MEASURED, size)
    what, rate = plan.first()

    assert rate == min(plan.limits().values())
    assert what in {"`per_server`", "`concurrency`"}
    assert plan.seconds() == pytest.approx(2 * ASSUMED.cold_s + size / rate)
    wider = replace(plan, concurrency=plan.concurrency * 2, per_server=plan.per_server * 2)
    assert wider.first()[1] == pytest.approx(rate * 2)


def test_per_server_limits_a_rollout_over_few_servers_and_concurrency_one_over_many() -> None:
    assert Plan(MEASURED, 1_000, concurrency=100, per_server=5).first()[0] == "`per_server`"
    assert Plan(MEASURED, 100_000, concurrency=100, per_server=5).first()[0] == "`concurrency`"


def test_state_transitions_limit_a_thousand_targets_at_once_in_regions_with_a_small_quota() -> None:
    plan = Plan(MEASURED, 100_000, concurrency=1_000, per_server=20)

    assert plan.first(elsewhere=True) == (
        "state transitions, in other regions",
        PUBLISHED.transitions_a_second_elsewhere / IMPLEMENTATION.states,
    )
    assert plan.seconds(elsewhere=True) > plan.seconds()


def test_the_settings_for_a_size_leave_room_for_the_application() -> None:
    for size in scale.SIZES:
        plan = scale.set_for(MEASURED, size)
        rate = plan.first()[1]

        assert plan.concurrency <= PUBLISHED.functions_at_once * ASSUMED.account_share
        assert plan.concurrency <= plan.servers * plan.per_server
        assert (
            plan.per_server * IMPLEMENTATION.sessions
            <= scale.max_connections(ASSUMED.server_gib) * ASSUMED.connection_share
        )
        assert rate / plan.servers * MEASURED.server_s <= ASSUMED.server_vcpus * ASSUMED.server_share


@pytest.mark.parametrize("gib, connections", [(1, 112), (4, 450), (8, 901), (64, 5000)])
def test_max_connections_is_rds_default(gib: int, connections: int) -> None:
    assert scale.max_connections(gib) == connections
