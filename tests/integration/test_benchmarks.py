"""Every benchmark runs in its smallest size, and its measurements are real."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import estimates, ground, review
from benchmarks.__main__ import QUESTIONS
from benchmarks.measurement import OURS, SMALLEST
from localcloud import postgres, testing
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.ground import Ground

# They share what they build.
pytestmark = [
    pytest.mark.xdist_group("benchmarks"),
    pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc"),
]


@pytest.fixture(scope="module")
def prepared(shared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    # As the benchmarks' own server: psql connects without TLS.
    directory = testing.clusters(shared_run) / "benchmarks"
    server = postgres.start(ROOT, directory, durable=False, needs_tls=False)
    with ground.on(server, tmp_path_factory.mktemp("benchmarks")) as made:
        yield made
    postgres.remove(ROOT, directory)


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_the_estimates_are_measured_within_a_time(prepared: Ground, seconds: float) -> None:
    outcome = estimates.measure(prepared, SMALLEST, seconds=seconds)

    *_, note = outcome.notes
    assert note.startswith(f"Not measured within {seconds:,.0f} s: ")
    assert "the table of 10,000 rows" in note
    assert (outcome.rows, outcome.goals) == ((), ())


@pytest.mark.stress
@pytest.mark.parametrize(
    "question",
    [
        pytest.param(question, id=question.QUESTION)
        # The last one takes too long for `make bench`, and is about no peer.
        for question in (*QUESTIONS, estimates)
    ],
)
def test_a_benchmark_measures_us_beside_others_and_judges_its_goals(question: object, prepared: Ground) -> None:
    outcome = question.measure(prepared, SMALLEST)  # type: ignore[attr-defined]

    contestants = {(row.case, row.contestant) for row in outcome.rows}
    for case in {case for case, _ in contestants}:
        names = {name for of, name in contestants if of == case}
        assert names & {OURS, review.OURS}
        # The review of a whole tree has no peer.
        assert len(names) > 1 or case.startswith("whole tree")
    assert all(value > 0 for row in outcome.rows for value in row.values)
    assert outcome.goals
    assert all(goal.value >= 0 and goal.limit >= 0 for goal in outcome.goals)
