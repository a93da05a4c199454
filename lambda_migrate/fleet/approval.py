"""Requests an approval between two waves, and halts a rollout for the state machine."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from lambda_migrate.fleet.folder import APPROVAL, STOPPED
from lambda_migrate.fleet.target import answer, folder_of, rollout_fields
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Result


def ask(invocation: Invocation) -> Result:
    """Store that the machine waits for an approval, and the token for the answer."""
    fields, folder = rollout_fields(invocation), folder_of(invocation)
    content = {
        "before": fields["key"],
        "asked": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "token": fields["token"],
    }
    folder.bucket.write(folder.key(APPROVAL), json.dumps(content))
    return answer(invocation, {"outcome": "asked"})


def halt(invocation: Invocation) -> Result:
    """Halt the rollout because an alarm is on, or because nobody approved the next wave in time."""
    folder_of(invocation).halt(STOPPED, one_line(rollout_fields(invocation)["message"]))
    return answer(invocation, {"outcome": "halted"})
