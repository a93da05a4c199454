"""The objects in S3 of a rollout, as the tests of `migrate rollout` write them, and the command's exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.reports import failure
from tests.support.rollout_stub import MACHINE

if TYPE_CHECKING:
    from tests.support.rollout_stub import RolloutStub


FAILED, USAGE, AWS, AGAIN, INTERRUPTED = 1, 2, 3, 4, 130
LAST = "20261123T222400Z-1a2b3c"


RUNNING = {"status": "RUNNING"}
WAVES = [
    {"wave": 1, "key": "", "count": 2, "concurrency": 2, "tolerated_failures": 0, "canary": True},
    {"wave": 2, "key": "", "count": 8, "concurrency": 4, "tolerated_failures": 0, "canary": False},
]


def listed(name: str, **changes: object) -> dict[str, Any]:
    """The rollout.json of ten targets in two waves."""
    began = {"execution": "", "stage": "dev", "plan": False, "started": "2026-11-23T22:24:00.000Z"}
    return {"rollout": name, **began, "targets": 10, "waves": WAVES, **changes}


def runs(aws: RolloutStub, *outcomes: str, **changes: object) -> None:
    """Write the objects of a rollout that has these outcomes so far."""
    aws.objects["rollouts/latest.json"] = json.dumps({"rollout": LAST, "execution": f"{MACHINE}:{LAST}"}).encode()
    aws.put(LAST, "rollout.json", listed(LAST, **changes))
    for wave in (1, 2):
        items = [
            {"number": number, "name": f"t{number}", "server": "s", "wave": wave, "target": {"schema": f"t{number}"}}
            for number in (range(1, 3) if wave == 1 else range(3, 11))
        ]
        aws.put(LAST, f"wave-{wave}.json", items)
    for outcome in outcomes:
        aws.put(LAST, f"outcomes/{outcome}", {"number": 1, **failure(1)})
