"""The S3 bucket of a stage's rollouts."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.aws import AwsError, calling, client
from lambda_migrate.invocation.errors import BucketUnavailable, ConfigurationError
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_migrate.invocation.settings import Settings

_READ_TIMEOUT_S = 20
_ATTEMPTS = 4
_CONDITIONS = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}
_MISSING = frozenset({"NoSuchKey", "404"})
# S3's codes for a condition that does not hold; the last one if the object is gone.
_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "NoSuchKey"})


class ChangedMeanwhile(Exception):  # noqa: N818 - the writer expects it and continues
    """An object was not written, because another writer changed it first."""


@dataclass(frozen=True)
class Bucket:
    """A bucket by its name. Each method raises `BucketUnavailable` if S3 cannot be reached or rejects the call."""

    name: str

    def read(self, key: str) -> tuple[Any, str] | None:
        """Return an object's JSON and its ETag, or None if there is no such object. Content that is no JSON is None."""
        with self._calling("read", key):
            try:
                with calling():
                    answer = _s3().get_object(Bucket=self.name, Key=key)
                    return _parsed(answer["Body"].read()), answer["ETag"]
            except AwsError as error:
                if error.code not in _MISSING:
                    raise
                return None

    def write(self, key: str, content: bytes | str, *, kind: str = "application/json", **condition: str) -> None:
        """Write an object; ``condition`` is ``IfMatch`` or ``IfNoneMatch``.

        Raises:
            ChangedMeanwhile: the condition does not hold.
        """
        body = content.encode() if isinstance(content, str) else content
        # Sent as headers, because a backend may lock a botocore from before S3 had conditional writes.
        headers = {_CONDITIONS[name]: value for name, value in condition.items()}

        def add(params: Mapping[str, Any], **_: object) -> None:
            params["headers"].update(headers)

        with self._calling("written", key):
            events = _s3().meta.events
            events.register("before-call.s3.PutObject", add)
            try:
                with calling():
                    _s3().put_object(Bucket=self.name, Key=key, Body=body, ContentType=kind)
            except AwsError as error:
                if error.code not in _CHANGED:
                    raise
                raise ChangedMeanwhile(key) from None
            finally:
                events.unregister("before-call.s3.PutObject", add)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys with this prefix, sorted. Each request to S3 returns a thousand."""
        with self._calling("listed", prefix), calling():
            for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def has(self, key: str) -> bool:
        """Return whether there is an object with exactly this key."""
        with self._calling("listed", key), calling():
            answer = _s3().list_objects_v2(Bucket=self.name, Prefix=key, MaxKeys=1)
            return any(entry["Key"] == key for entry in answer.get("Contents", ()))

    def has_any(self, prefix: str) -> bool:
        """Return whether there is an object whose key begins so."""
        with self._calling("listed", prefix), calling():
            return bool(_s3().list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=1).get("Contents"))

    @contextmanager
    def _calling(self, done: str, key: str) -> Iterator[None]:
        try:
            yield
        except AwsError as error:
            raise BucketUnavailable(
                f"s3://{self.name}/{key} could not be {done}: {one_line(error)} (in a VPC the function needs a way to"
                " S3)"
            ) from None


def bucket_of(settings: Settings) -> Bucket:
    """Return the bucket of the stage's rollouts.

    Raises:
        ConfigurationError: the stage has no bucket.
    """
    if settings.rollout_bucket is None:
        raise ConfigurationError("ROLLOUT_BUCKET is not set: give the stage `rollout` in cdk.json and deploy it")
    return Bucket(settings.rollout_bucket)


def _parsed(content: bytes) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _s3() -> Any:  # noqa: ANN401 - botocore generates the type
    return client("s3", read_timeout_s=_READ_TIMEOUT_S, attempts=_ATTEMPTS)
