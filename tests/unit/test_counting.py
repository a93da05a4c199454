"""A rollout counts every target once, even with lost, repeated or late answers of Lambda, Step Functions and S3."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.fleet import report as reports
from lambda_migrate.fleet.bucket import Bucket, ChangedMeanwhile
from lambda_migrate.fleet.folder import (
    BEHIND,
    CURRENT,
    FAILED,
    HALT,
    LEFT,
    MIGRATED,
    OUTCOMES,
    ROLLOUT,
    Folder,
    Outcome,
    wave_file,
)
from lambda_migrate.fleet.outcome_reader import last_of_each, observe
from lambda_migrate.fleet.target import record_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

# What may happen to a target, in any order and as often as Step Functions likes: Lambda answers, or the answer is lost
# and the next invocation finds nothing to do; Step Functions gives up, twice if it lost its own answer, or too early.
EVENTS = (MIGRATED, CURRENT, FAILED)
WAVES = (2, 5)
TARGETS = sum(WAVES)


@dataclass(frozen=True)
class Memory(Bucket):
    """Objects in memory, with S3's conditional write and sorted listing."""

    objects: dict[str, bytes] = field(default_factory=dict)

    def read(self, key: str) -> tuple[Any, str] | None:
        return (json.loads(self.objects[key]), "") if key in self.objects else None

    def write(self, key: str, content: bytes | str, **condition: str) -> None:
        if condition and key in self.objects:
            raise ChangedMeanwhile(key)
        self.objects[key] = content.encode() if isinstance(content, str) else content

    def keys(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self.objects if key.startswith(prefix))

    def has(self, key: str) -> bool:
        return key in self.objects

    def has_any(self, prefix: str) -> bool:
        return any(True for _ in self.keys(prefix))


def listed(tolerated: int) -> Folder:
    """A rollout of two waves, the first of which has canaries."""
    folder = Folder(Memory("bucket"), "r")
    waves = []
    number = 1
    for wave, count in enumerate(WAVES, start=1):
        items = [
            {"number": n, "name": f"t{n}", "server": "s", "wave": wave, "target": {"schema": f"t{n}"}}
            for n in range(number, number + count)
        ]
        number += count
        folder.bucket.write(folder.key(wave_file(wave)), json.dumps(items))
        canary = wave == 1
        waves.append({"wave": wave, "count": count, "tolerated_failures": 0 if canary else tolerated, "canary": canary})
    began = {"rollout": "r", "stage": "dev", "plan": False, "started": "2026-11-23T10:00:00.000Z"}
    folder.bucket.write(folder.key(ROLLOUT), json.dumps({**began, "targets": TARGETS, "waves": waves}))
    return folder


def item(number: int) -> dict[str, Any]:
    wave = 1 if number <= WAVES[0] else 2
    return {"number": number, "name": f"t{number}", "server": "s", "wave": wave, "target": {"schema": f"t{number}"}}


def expected(events: list[str]) -> str:
    """Return a target's outcome: success if any run succeeded, otherwise failure."""
    return next((what for what in (MIGRATED, CURRENT, FAILED) if what in events), LEFT)


def test_of_a_target_that_is_recorded_twice_the_run_that_did_the_work_counts() -> None:
    folder = listed(0)
    for duration_ms in (12, 840_000, 9):
        folder.put_outcome(item(1), MIGRATED, duration_ms=duration_ms, revision="b2")

    [found] = last_of_each(folder.read(ROLLOUT), folder.outcomes()).values()

    assert found.duration_ms == 840_000


HISTORIES = st.lists(st.tuples(st.integers(1, TARGETS), st.sampled_from(EVENTS)), max_size=25)


@given(HISTORIES, st.integers(0, 3))
def test_every_target_is_counted_once_by_the_report_the_list_and_record_alike(
    history: list[tuple[int, str]], tolerated: int
) -> None:
    folder = listed(tolerated)
    happened: dict[int, list[str]] = {number: [] for number in range(1, TARGETS + 1)}
    must_halt = False
    for place, (number, event) in enumerate(history):
        if event == FAILED:
            # Each message takes another time, so a doubled one is another object.
            fields = {"item": item(number), "runs": 0, "error": {"Error": "E", "Cause": "c"}, "began": None}
            record_failure(folder, fields)
            folder.bucket.objects.update(_later(folder, number, place))  # type: ignore[attr-defined]
        else:
            folder.put_outcome(item(number), event, duration_ms=place, revision="a1")
        happened[number].append(event)
        wave = range(1, WAVES[0] + 1) if number <= WAVES[0] else range(WAVES[0] + 1, TARGETS + 1)
        failed = sum(expected(happened[each]) == FAILED for each in wave)
        must_halt = must_halt or (event == FAILED and failed > (0 if number <= WAVES[0] else tolerated))

    counted = Counter(expected(events) for events in happened.values())
    report = reports.read(folder, stage="dev")
    observed = observe(folder)

    assert report is not None
    assert observed is not None
    assert report["counts"] == {"targets": TARGETS, **{what: counted[what] for what in OUTCOMES}}
    lines = list(observed.targets())
    assert [line["name"] for line in lines] == [f"t{number}" for number in happened]
    assert [line["outcome"] for line in lines] == [expected(events) for events in happened.values()]
    assert len({failure["name"] for failure in report["failures"]}) == len(report["failures"]) == counted[FAILED]
    assert folder.bucket.has(folder.key(HALT)) is must_halt


def _later(folder: Folder, number: int, place: int) -> dict[str, bytes]:
    """The same failure once more, as a second invocation of `record` writes it a moment later."""
    found = [outcome for outcome in folder.outcomes(outcome=FAILED) if outcome.number == number]
    return {
        folder.key(f"outcomes/{outcome.wave}/failed/{number}/{place + 1}/E"): folder.bucket.objects[outcome.key]  # type: ignore[attr-defined]
        for outcome in found[:1]
    }


SOME = st.lists(
    st.builds(
        lambda number, what, ms: Outcome(1 if number <= WAVES[0] else 2, number, what, ms, "a1", f"{number}/{what}"),
        st.integers(0, TARGETS + 2),
        st.sampled_from((MIGRATED, CURRENT, BEHIND, FAILED)),
        st.integers(0, 3),
    ),
    max_size=30,
)


@given(SOME, st.randoms())
def test_neither_order_nor_repetition_changes_the_counts(outcomes: list[Outcome], random: Any) -> None:  # noqa: ANN401
    waves = [{"wave": number, "count": count} for number, count in enumerate(WAVES, start=1)]
    shuffled = [*outcomes, *outcomes]
    random.shuffle(shuffled)

    once, twice = last_of_each({"waves": waves}, outcomes), last_of_each({"waves": waves}, shuffled)

    assert {n: o.outcome for n, o in once.items()} == {n: o.outcome for n, o in twice.items()}
    # An outcome of a target that was not listed counts nowhere.
    assert once.keys() <= set(range(1, TARGETS + 1))
