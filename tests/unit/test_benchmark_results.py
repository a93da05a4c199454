"""The statistics of the benchmarks; the page, the chart and results.json agree."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from benchmarks import chart, document, ground, history, report
from benchmarks.__main__ import QUESTIONS
from benchmarks.measurement import OURS, Contestant, Goal, Outcome, interleaved

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {"machine": {"cores": 2}, "versions": {"python": "3.13.0"}}


def outcome(question: str = "sample", value: float = 1.0) -> Outcome:
    values = {OURS: iter([9.0, 1.0, 2.0, 3.0]), "other": iter([9.0, 4.0, 2.0, 9.0])}
    measured = interleaved([Contestant("case", name, values[name].__next__) for name in values], rounds=3)
    return Outcome(question, "Sample", measured.rows(), (Goal("be fast", value, 1.0),), ("A note.",))


def test_contestants_take_turns_and_the_first_round_does_not_count() -> None:
    turns: list[str] = []

    def turn(name: str) -> float:
        turns.append(name)
        return len(turns)

    measured = interleaved(
        [
            Contestant("case", OURS, lambda: turn("a"), prepare=lambda: turns.append("prepare a")),
            Contestant("case", "other", lambda: turn("b")),
            Contestant("case", "slow", lambda: turn("c"), once=True),
        ],
        rounds=2,
    )

    assert turns == ["prepare a", "a", "b", "prepare a", "a", "b", "c", "prepare a", "a", "b"]
    assert measured.values == {("case", OURS): [5, 9], ("case", "other"): [6, 10], ("case", "slow"): [7]}


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians() -> None:
    ours, other = outcome().rows

    assert (ours.median, ours.ratio) == (2.0, 1.0)
    assert (other.median, other.ratio) == (4.0, 3.0)


@pytest.mark.parametrize("value, met", [(0.9, True), (1.0, True), (1.004, True), (1.006, False)])
def test_a_goal_is_met_up_to_its_limit_as_it_is_shown(value: float, met: bool) -> None:  # noqa: FBT001 - what is expected
    assert Goal("be fast", value, 1.0).met is met
    assert report.sentence(Goal("be fast", value, 1.0)).startswith("met" if met else "MISSED")


@pytest.mark.parametrize(
    "number, unit, text",
    [
        (0.0123, "s", "12.3 ms"),
        (0.3456, "s", "346 ms"),
        (1.234, "s", "1.23 s"),
        (2.5, "x", "2.50 x"),
        (58.25, "MB", "58.2 MB"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_count(number: float, unit: str, text: str) -> None:
    assert report.formatted(number, unit) == text


def test_the_table_shows_contestants_notes_and_goals() -> None:
    console = Console(file=io.StringIO(), width=120)

    report.show(outcome(value=1.5), console)

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in (
        OURS,
        "other",
        "4.00 s",
        "2.00 s",
        "9.00 s",
        "3.00 x",
        "A note.",
        "MISSED: be fast: 1.50 x of at most",
    ):
        assert expected in shown


def test_results_are_merged_while_machine_and_versions_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    report.record(outcome("one"), MACHINE, path)
    report.record(outcome("two"), MACHINE, path)
    report.record(outcome("one", value=2.0), MACHINE, path)

    questions = json.loads(path.read_text())["questions"]
    assert list(questions) == ["one", "two"]
    assert [goal["met"] for goal in questions["one"]["goals"]] == [False]
    assert questions["two"]["rows"][1] == {
        "case": "case",
        "contestant": "other",
        "unit": "s",
        "median": 4.0,
        "min": 2.0,
        "max": 9.0,
        "rounds": 3,
        "ratio": 3.0,
    }


def test_results_of_another_machine_are_not_kept_beside_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report.record(outcome("one"), MACHINE, path)

    report.record(outcome("two"), {**MACHINE, "machine": {"cores": 96}}, path)

    assert list(json.loads(path.read_text())["questions"]) == ["two"]


def test_the_page_keeps_what_people_wrote_around_the_results(tmp_path: Path) -> None:
    page, results, picture = tmp_path / "page.md", tmp_path / "results.json", tmp_path / "images" / "chart.svg"
    results.write_text(report.RESULTS.read_text())
    page.write_text(f"Before.\n\n{document.BEGIN}\nSTALE\n{document.END}\n\nAfter.\n")

    document.write(results, page, picture)
    once = page.read_text()
    document.write(results, page, picture)

    assert once == page.read_text()
    assert once.startswith("Before.\n\n")
    assert once.endswith("\n\nAfter.\n")
    assert "STALE" not in once
    ET.fromstring(picture.read_text())  # noqa: S314 - our own


def test_the_page_and_the_chart_agree_with_the_results() -> None:
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    written = document.PAGE.read_text(encoding="utf-8")

    assert written.partition(document.BEGIN)[2].partition(document.END)[0] == f"\n{document.section(results)}"
    assert document.CHART.read_text(encoding="utf-8") == chart.draw(results)


def test_every_question_has_been_answered() -> None:
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))

    assert set(results["questions"]) == {question.QUESTION for question in QUESTIONS}
    assert all(row["rounds"] % 2 for question in results["questions"].values() for row in question["rows"])


def test_results_name_no_folder_of_the_machine_they_were_measured_on() -> None:
    text = report.RESULTS.read_text(encoding="utf-8")

    assert str(ground.ROOT) not in text
    assert "/home/" not in text


def run(commit: str, median: float, best: float, machine: object = MACHINE["machine"]) -> dict[str, object]:
    figures = {"sample: case": {"unit": "s", "median": median, "min": best}}
    return {"commit": commit, "date": "2026-11-27", "machine": machine, "figures": figures, "goals": {}}


def test_the_history_keeps_our_own_figures_and_the_goals(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"

    assert history.record(history.entry([outcome()], MACHINE, "c0ffee"), path) == []

    [kept] = [json.loads(line) for line in path.read_text().splitlines()]
    assert (kept["commit"], kept["machine"]) == ("c0ffee", {"cores": 2})
    assert kept["figures"] == {"sample: case": {"unit": "s", "median": 2.0, "min": 1.0}}
    assert kept["goals"] == {"sample: be fast": 1.0}


@pytest.mark.parametrize(
    "median,best,expected",
    [
        (1.3, 1.2, ["sample: case: 1.3 s, 1.30 times the 1 of b (2026-11-27)"]),
        (1.3, 0.9, []),  # its best round is as good
        (1.05, 1.02, []),  # within what two runs differ by
        (0.8, 0.7, []),
    ],
)
def test_figures_slower_than_in_the_last_run_on_this_machine_are_listed(
    median: float, best: float, expected: list[str]
) -> None:
    before = [run("a", 9.0, 9.0), run("b", 1.0, 0.9), run("c", 0.1, 0.1, {"cores": 64})]

    assert [*history.slower(before, run("d", median, best))] == expected
