"""One target's part in a rollout, and the folder in S3 that all parts of it share.

`infra.state_machine` builds the state machine that invokes the function with the field ``rollout``. S3, and not the
state machine, holds whether a rollout still runs and the outcome of each target: when a Distributed Map passes its
failure threshold, AWS stops its children and discards their results. The outcome of a target is the key of an object,
so that one request reads a thousand outcomes.
"""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lambda_migrate.database.server_limit import ServerBusy, leave_if_busy
from lambda_migrate.invocation.contract import BucketUnavailable, ConfigurationError, MigrationLocked, Result, joined
from lambda_migrate.invocation.invocation import Invocation
from lambda_migrate.invocation.loading import loading
from lambda_migrate.invocation.telemetry import log, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Progress
    from lambda_migrate.invocation.settings import Settings

ROOT = "rollouts"
# The newest rollout, and the lock that lets one run at a time.
LATEST = f"{ROOT}/latest.json"
BASE = "base"

_CONDITIONS = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}
# What S3 says where a condition does not hold: the last, where the object is gone.
_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "NoSuchKey"})
_CONNECT_TIMEOUT_S = 3
_READ_TIMEOUT_S = 20
_ATTEMPTS = 4
# S3's limit for a key is 1,024 bytes; the rest of the key needs far less than what this leaves.
_LONGEST_REVISION = 700
_RETRY_AFTER_S = 5
# So many times a target comes to its server in vain. Each is nine of the 25,000 events that one execution may have.
_LOOKS = 2000


class ChangedMeanwhile(Exception):  # noqa: N818 - whoever writes on a condition expects it
    """An object was not written because it is not what the writer took it for."""


@dataclass(frozen=True)
class Outcome:
    """What became of one target: ``migrated``, ``current``, ``behind`` (a plan's) or ``failed``, and where it is."""

    wave: int
    number: int
    outcome: str
    duration_ms: int
    revision: str
    key: str


@dataclass(frozen=True)
class Bucket:
    """The bucket of the stage's rollouts."""

    name: str

    def read(self, key: str) -> tuple[Any, str] | None:
        """An object's JSON and its ETag; None when there is no such object."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - as in `_s3`

        with _named("read", self.name, key):
            try:
                answer = _s3().get_object(Bucket=self.name, Key=key)
                return json.loads(answer["Body"].read()), answer["ETag"]
            except ClientError as error:
                if error.response["Error"]["Code"] not in {"NoSuchKey", "404"}:
                    raise
                return None

    def write(self, key: str, content: bytes | str, *, kind: str = "application/json", **condition: str) -> None:
        """Write an object; ``condition`` is ``IfMatch`` or ``IfNoneMatch``.

        Raises:
            ChangedMeanwhile: the condition does not hold.
        """
        from botocore.exceptions import ClientError  # noqa: PLC0415 - as in `_s3`

        body = content.encode() if isinstance(content, str) else content
        # As headers: a backend may lock a botocore from before S3 had conditions.
        headers = {_CONDITIONS[name]: value for name, value in condition.items()}

        def add(params: Mapping[str, Any], **_: object) -> None:
            params["headers"].update(headers)

        events = _s3().meta.events
        events.register("before-call.s3.PutObject", add)
        with _named("written", self.name, key):
            try:
                _s3().put_object(Bucket=self.name, Key=key, Body=body, ContentType=kind)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _CHANGED:
                    raise
                raise ChangedMeanwhile(key) from None
            finally:
                events.unregister("before-call.s3.PutObject", add)

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin so, in their order; S3 gives a thousand at once."""
        with _named("listed", self.name, prefix):
            for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def has(self, key: str) -> bool:
        """Whether there is an object under this very key."""
        with _named("listed", self.name, key):
            answer = _s3().list_objects_v2(Bucket=self.name, Prefix=key, MaxKeys=1)
            return any(entry["Key"] == key for entry in answer.get("Contents", ()))


@dataclass(frozen=True)
class Folder:
    """Everything of one rollout, which is called as its execution is."""

    bucket: Bucket
    name: str

    def key(self, name: str) -> str:
        """The key of one of its objects."""
        return f"{ROOT}/{self.name}/{name}"

    def read(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """The JSON of one of its objects; None when it is not there."""
        found = self.bucket.read(self.key(name))
        return found and found[0]

    def is_halted(self) -> bool:
        """Whether no further target may be begun."""
        return self.bucket.has(self.key("halt.json"))

    def halt(self, why: str, message: str) -> None:
        """Let no further target begin; the first reason stays."""
        said = json.dumps({"why": why, "message": message})
        try:
            self.bucket.write(self.key("halt.json"), said, IfNoneMatch="*")
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
        """Write down what became of a target."""
        at = quote(revision or BASE, safe="")[:_LONGEST_REVISION]
        name = f"outcomes/{int(item['wave'])}/{outcome}/{int(item['number'])}/{duration_ms}/{at}"
        self.bucket.write(self.key(name), json.dumps({**item, **(details or {})}))

    def outcomes(self, wave: int | None = None, outcome: str | None = None) -> Iterator[Outcome]:
        """What became of the targets of a wave, or of all."""
        prefix = self.key("outcomes/")
        # Each failure is counted when there is one more: among the failed ones, not among all.
        within = "" if wave is None else f"{wave}/" if outcome is None else f"{wave}/{outcome}/"
        for key in self.bucket.keys(prefix + within):
            of_wave, what, number, duration_ms, at = key[len(prefix) :].split("/")
            if outcome in {None, what}:
                yield Outcome(int(of_wave), int(number), what, int(duration_ms), unquote(at), key)


def bucket_of(settings: Settings) -> Bucket:
    """The bucket of the stage's rollouts.

    Raises:
        ConfigurationError: the stage has none.
    """
    if settings.rollout_bucket is None:
        raise ConfigurationError("ROLLOUT_BUCKET is not set: give the stage `rollout` in cdk.json and deploy it")
    return Bucket(settings.rollout_bucket)


def folder_of(invocation: Invocation) -> Folder:
    """The folder of the rollout that an invocation is a part of; as `bucket_of`."""
    return Folder(bucket_of(invocation.settings), said_of(invocation)["name"])


def said_of(invocation: Invocation) -> Mapping[str, Any]:
    """What the state machine said of the rollout."""
    said = invocation.request.rollout
    if said is None:
        raise AssertionError("unreachable: the contract demands it for these actions")
    return said


@dataclass(frozen=True)
class _Part(Invocation):
    """An invocation that works on a server only where there is room."""

    def open_session(self) -> Session:
        session = super().open_session()
        limit = self.settings.server_concurrency
        try:
            if limit is not None:
                leave_if_busy(session, self.name, limit)
        except BaseException:
            session.close()
            raise
        return session


def take_part(invocation: Invocation, progress: Progress, perform: Callable[[Invocation, Progress], Result]) -> Result:
    """Do one target's part in a rollout, and write down what became of it. The answer is short: `outcome`.

    Beside those of an `Outcome`, that is ``left`` when the rollout is halted, and ``busy`` when there is no room on the
    server, with the seconds to wait in ``wait_s`` and in ``looks`` how often that was so. A failure is not written
    down: the state machine may try again.

    Raises:
        MigrationError: as the action itself.
        MigrationLocked: also when there was no room on the server so often that it will not look again.
    """
    folder, said = folder_of(invocation), said_of(invocation)
    if folder.is_halted():
        return answer(invocation, {"outcome": "left"})
    part = _Part(
        **{field: getattr(invocation, field) for field in ("request", "settings", "store", "deadline", "name")}
    )
    left = invocation.deadline.left()
    try:
        result = perform(part, progress)
    except ServerBusy as busy:
        log("lock.waiting", str(busy))
        longest = 2 * int(invocation.settings.rollout.get("retry_after_s", _RETRY_AFTER_S))
        # An execution that began before it was counted does not say.
        looks = (said.get("looks") or 0) + 1
        if looks >= _LOOKS:
            raise MigrationLocked(
                f"{looks:,} times there was no room on the server: {busy}; see who is at work there in"
                " pg_stat_activity, or raise per_server"
            ) from None
        # At random: those that were refused together would otherwise come back together.
        wait_s = random.randint(1, longest)  # noqa: S311
        return answer(invocation, {"outcome": "busy", "wait_s": wait_s, "looks": looks})
    # What runs before this one have applied is the rollout's doing, too.
    outcome = "migrated" if result.applied or said["runs"] else "behind" if result.pending else "current"
    duration_ms = round((left - invocation.deadline.left()) * 1000)
    folder.put_outcome(said["item"], outcome, duration_ms=duration_ms, revision=joined(result.revisions))
    # A plan looks, and decides nothing.
    progress.outcome = outcome if invocation.request.action == "upgrade" else None
    return replace(result, located=False, extra={"outcome": outcome})


def record(invocation: Invocation, progress: Progress) -> Result:
    """Write down that a target failed, and halt the rollout when its wave has more of those than it tolerates."""
    folder, said = folder_of(invocation), said_of(invocation)
    item, failure = said["item"], failure_of(said["error"])
    folder.put_outcome(item, "failed", details={**failure, "runs": said["runs"]})
    rollout = folder.read("rollout.json")
    progress.outcome = None if rollout["plan"] else "failed"
    wave = next(wave for wave in rollout["waves"] if wave["wave"] == item["wave"])
    failed = sum(1 for _ in folder.outcomes(item["wave"], "failed"))
    if failed > wave["tolerated_failures"]:
        folder.halt(
            "failures",
            f"{failed} of the {wave['count']} targets of {title(wave)} failed, {wave['tolerated_failures']} are"
            f" tolerated; the last was {item['name']}: {failure['error_type']}: {failure['message']}",
        )
    return answer(invocation, {"outcome": "failed"})


def title(wave: Mapping[str, Any]) -> str:
    """A wave, for people."""
    return "the canaries" if wave["canary"] else f"wave {wave['wave']}"


def failure_of(error: Mapping[str, Any]) -> dict[str, str]:
    """The errorType and the message in what Step Functions caught: Lambda's own JSON, or what a service said."""
    cause = str(error.get("Cause", ""))
    try:
        told = json.loads(cause)
        message = str(told["errorMessage"])
    except (ValueError, TypeError, KeyError):
        message = cause
    return {"error_type": str(error.get("Error", "Unknown")), "message": one_line(message)}


def answer(invocation: Invocation, extra: Mapping[str, Any]) -> Result:
    """The answer of what looked at no database."""
    return Result(
        action=invocation.request.action,
        stage=invocation.settings.stage,
        database="",
        schema=None,
        previous_revisions=(),
        revisions=(),
        located=False,
        extra=extra,
    )


@contextmanager
def _named(done: str, bucket: str, key: str) -> Iterator[None]:
    """Whatever goes wrong with S3 as an error of the contract."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as in `_s3`

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise BucketUnavailable(
            f"s3://{bucket}/{key} could not be {done}: {one_line(error)} (in a VPC the function needs a way to S3)"
        ) from None


@lru_cache(maxsize=1)
def _s3() -> Any:  # noqa: ANN401 - botocore makes its clients' types when it makes them
    # botocore takes a tenth of a second to import, and only rollouts need S3.
    with loading():
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
    )
    return botocore.session.get_session().create_client("s3", config=config)
