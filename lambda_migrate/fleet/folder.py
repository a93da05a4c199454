"""A rollout's objects in S3: their keys, the outcome of each target, and whether the rollout is halted.

The outcome of a target is part of an object's key, so that one request reads a thousand outcomes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lambda_migrate.fleet.bucket import ChangedMeanwhile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_migrate.fleet.bucket import Bucket

ROOT = "rollouts"
# Names the newest rollout, and is the lock that lets one rollout of a stage run at a time.
LATEST = f"{ROOT}/latest.json"

# The objects of one rollout.
ROLLOUT = "rollout.json"
HALT = "halt.json"
REPORT = "report.json"
PAGE = "report.html"
TARGETS = "targets.jsonl"
APPROVAL = "approval.json"

MIGRATED = "migrated"  # something was applied
CURRENT = "current"  # nothing was pending
BEHIND = "behind"  # something is pending, in a plan
FAILED = "failed"
LEFT = "left"  # not begun: the only one that no object records
# The order matters: if S3 has two outcomes for one target, the first in this order counts.
OUTCOMES = (MIGRATED, CURRENT, BEHIND, FAILED, LEFT)

# Why a rollout was halted.
STOPPED = "stopped"
FAILURES = "failures"
DEPLOYED = "deployed"
SUPERSEDED = "superseded"

BASE = "base"
_OUTCOME = re.compile(rf"([0-9]{{1,9}})/({'|'.join(OUTCOMES)})/([0-9]{{1,9}})/([0-9]{{1,12}})/([^/]+)")
# S3's limit for a key is 1,024 bytes. The rest of the key needs far less than the 324 left.
_LONGEST_REVISION = 700


# The objects that one wave may have: Step Functions passes on 256 KB.
MOST_PARTS = 200
# The forms of the objects. People write these by hand, too.
_ITEM = {"number": int, "name": str, "server": str, "wave": int, "target": dict}
_WAVE = {"wave": int, "count": int, "tolerated_failures": int, "canary": bool, "parts": (None, int)}
_LISTING = {
    "rollout": str,
    "stage": str,
    "plan": bool,
    "started": str,
    "targets": int,
    "waves": [_WAVE],
    **dict.fromkeys(("package", "downgrade_to", "migrated_by"), (None, str)),
    **dict.fromkeys(("heads", "new", "chosen"), (None, [str])),
    "check": (None, bool),
    "excluded": (None, [{"name": str, "reason": str}]),
}


def wave_file(number: int, part: int = 1) -> str:
    """Return the name of the object that lists the targets of a wave, or those of one part of a long wave."""
    return f"wave-{number}.json" if part == 1 else f"wave-{number}-{part}.json"


class SpoiledError(Exception):
    """rollout.json was changed by hand."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one target, one of `OUTCOMES`, and the revision that its database is at.

    ``revision`` of a failure is the type of its error.
    """

    wave: int
    number: int
    outcome: str
    duration_ms: int
    revision: str
    key: str


@dataclass(frozen=True)
class Folder:
    """The objects of one rollout. ``name`` is the name of its execution."""

    bucket: Bucket
    name: str

    def key(self, name: str) -> str:
        """Return the key of one of its objects."""
        return f"{ROOT}/{self.name}/{name}"

    def read(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of one of its objects, or None if it does not exist or is no JSON."""
        found = self.bucket.read(self.key(name))
        return found and found[0]

    def listing(self) -> dict[str, Any] | None:
        """Return the listing in rollout.json, or None if there is none.

        Raises:
            SpoiledError: rollout.json has another form.
        """
        found = self.bucket.read(self.key(ROLLOUT))
        if found is None:
            return None
        if not _is_listing(found[0]):
            raise SpoiledError(f"s3://{self.bucket.name}/{self.key(ROLLOUT)} is not what the function wrote")
        listing: dict[str, Any] = found[0]
        return listing

    def halted(self) -> dict[str, Any] | None:
        """Return the reason why the rollout is halted, as ``why`` and ``message``, or None if it is not.

        halt.json halts with any content, because people write it by hand.
        """
        if not self.is_halted():
            return None
        content = self.read(HALT)
        given = content if isinstance(content, dict) else {}
        message = given.get("message")
        return {
            "why": given["why"] if given.get("why") in (FAILURES, DEPLOYED, SUPERSEDED) else STOPPED,
            "message": message if isinstance(message, str) and message else "stopped by halt.json",
        }

    def items(self, wave: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the targets of a wave, in their order. What the function did not write there is left out."""
        for part in range(1, (wave.get("parts") or 1) + 1):
            items = self.read(wave_file(wave["wave"], part))
            yield from (item for item in items if has_form(item, _ITEM)) if isinstance(items, list) else ()

    def is_halted(self) -> bool:
        """Return whether no further target may begin."""
        return self.bucket.has(self.key(HALT))

    def halt(self, why: str, message: str) -> None:
        """Let no further target begin. If the rollout is halted already, the first reason stays."""
        try:
            self.bucket.write(self.key(HALT), json.dumps({"why": why, "message": message}), IfNoneMatch="*")
        except ChangedMeanwhile:
            return

    def put_outcome(
        self,
        item: Mapping[str, Any],
        outcome: str,
        *,
        duration_ms: int = 0,
        revision: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the outcome of a target. ``item`` is the target's entry in its wave.

        A failure has the type of its error as ``revision``, because the database's revision is unknown.
        """
        at = quote(revision or BASE, safe="")[:_LONGEST_REVISION]
        name = f"outcomes/{int(item['wave'])}/{outcome}/{int(item['number'])}/{duration_ms}/{at}"
        self.bucket.write(self.key(name), json.dumps({**item, **(details or {})}))

    def put(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of its objects."""
        self.bucket.write(self.key(name), json.dumps(content))

    def has_succeeded(self, item: Mapping[str, Any]) -> bool:
        """Return whether an outcome other than a failure is recorded for a target: the answer to it may be lost."""
        return any(
            self.bucket.has_any(self.key(f"outcomes/{int(item['wave'])}/{outcome}/{int(item['number'])}/"))
            for outcome in (MIGRATED, CURRENT, BEHIND)
        )

    def outcomes(self, wave: int | None = None, outcome: str | None = None) -> Iterator[Outcome]:
        """Yield the outcomes of one wave or of all, and only those of one kind if ``outcome`` is given."""
        prefix = self.key("outcomes/")
        # Counting the failures of a wave after each one reads the failed outcomes only.
        within = "" if wave is None else f"{wave}/" if outcome is None else f"{wave}/{outcome}/"
        for key in self.bucket.keys(prefix + within):
            found = _outcome(key, key[len(prefix) :])
            if found is not None and outcome in {None, found.outcome}:
                yield found


def _outcome(key: str, path: str) -> Outcome | None:
    """Return the outcome that a key holds, or None if the function does not write such a key."""
    match = _OUTCOME.fullmatch(path)
    if match is None:
        return None
    wave, what, number, duration_ms, at = match.groups()
    return Outcome(int(wave), int(number), what, int(duration_ms), unquote(at), key)


def has_form(document: object, form: object) -> bool:
    """Return whether JSON has a form: a type, None, a dict of fields, a list of one form, or a tuple of alternatives.

    A missing field counts as None.
    """
    if isinstance(form, tuple):
        return any(has_form(document, each) for each in form)
    if isinstance(form, list):
        return isinstance(document, list) and all(has_form(each, form[0]) for each in document)
    if isinstance(form, dict):
        return isinstance(document, dict) and all(has_form(document.get(name), each) for name, each in form.items())
    # A bool is an int for isinstance.
    return document is None if form is None else type(document) is form


def _is_listing(document: object) -> bool:
    """Return whether a document has the form of rollout.json."""
    if not isinstance(document, dict) or not has_form(document, _LISTING):
        return False
    # Both or neither.
    downgrades = {document.get(name) is None for name in ("downgrade_to", "migrated_by")}
    sizes = [(wave["count"], wave.get("parts") or 1) for wave in document["waves"]]
    return len(downgrades) == 1 and all(count >= 0 and 1 <= parts <= MOST_PARTS for count, parts in sizes)
