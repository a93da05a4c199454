"""Everything that leaves the function beside its answer: log lines, metrics, and what they must not hold.

Each line is one JSON object. `EVENTS` names what can have happened; dashboards and saved queries rely on it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, quote_plus

from aws_lambda_powertools import Logger

if TYPE_CHECKING:
    from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

Event = Literal[
    "migration.started",
    "connection.retried",
    "lock.waiting",
    "lock.acquired",
    "revision.started",
    "revision.applied",
    "revision.retried",
    "migration.finished",
    "migration.failed",
    "migration.noop",
    "migration.ahead",
    "index.dropped",
    "backend.output",
]

METRICS_NAMESPACE = "template-saas/migrate"
REDACTED = "***"

# Shorter secrets would blank out half of every line, and protect nobody.
_SHORTEST_SECRET = 3
# Any address with a login, also of a secret that we never knew of.
_LOGIN_IN_URL = re.compile(r"://[^\s/@:'\"]*:[^\s'\"]*@")

# A sandbox that serves a fleet learns thousands of secrets, and a line can only hold one that is in use.
_CONCEALED_AT_MOST = 100

# Each secret with the ways in which it may be written, the one concealed last at the end.
_concealed: dict[str, frozenset[str]] = {}


def conceal(secret: str) -> None:
    """Keep this text, in every way that libraries are known to write it, out of whatever is logged or raised."""
    if len(secret) < _SHORTEST_SECRET:
        return
    written = {
        secret,
        quote(secret, safe=""),
        quote(secret, safe="/"),
        quote(secret, safe=" +"),  # SQLAlchemy's own way
        quote_plus(secret),
        quote(secret, safe="").replace("%", "%%"),  # as a config file holds it
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        secret.replace("\\", "\\\\").replace("'", "\\'"),  # as libpq's connection strings hold it
    }
    _concealed.pop(secret, None)
    _concealed[secret] = frozenset(written | {json.dumps(text)[1:-1] for text in written})
    if len(_concealed) > _CONCEALED_AT_MOST:
        del _concealed[next(iter(_concealed))]
    _longest_first.cache_clear()


@lru_cache(maxsize=1)
def _longest_first() -> list[str]:
    return sorted({text for written in _concealed.values() for text in written}, key=len, reverse=True)


def redact(text: str) -> str:
    """The text without any secret that was concealed and without the login of any URL."""
    for secret in _longest_first():
        text = text.replace(secret, REDACTED)
    return _LOGIN_IN_URL.sub(f"://{REDACTED}@", text)


def one_line(error: BaseException | str, *, limit: int = 2000) -> str:
    """An error's message as it may be logged: without secrets, on one line, at most ``limit`` characters."""
    # Before the white space changes too: a secret may hold some.
    text = redact(" ".join(redact(str(error)).split()))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _serialize(line: Mapping[str, Any]) -> str:
    text = _as_json(line)
    # Most lines hold nothing to redact, which is sooner seen of the whole than of each value.
    if "://" not in text and not any(secret in text for secret in _longest_first()):
        return text
    return _as_json(_redacted(line))


def _as_json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, default=str, separators=(",", ":"))


def _redacted(value: Any) -> Any:  # noqa: ANN401 - whatever a log line may hold
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(inner) for inner in value]
    return value


# What counts a rollout's targets, by what became of them.
TARGET_METRICS = {"migrated": "TargetsMigrated", "current": "TargetsCurrent", "failed": "TargetsFailed"}

# POWERTOOLS_SERVICE_NAME, set by the stack, names the service. Lambda's own handler on the root logger would print
# each line a second time, as text.
logger = Logger(
    json_serializer=_serialize,
    # Powertools would turn a message that happens to be JSON, such as a number, into what it stands for.
    json_deserializer=str,
    location=None,
    log_record_order=["timestamp", "level", "event", "message"],
)


def log(event: Event, message: str, *, level: int = logging.INFO, **fields: Any) -> None:  # noqa: ANN401
    """One line about something that happened. ``fields`` are those of the contract's section 8; None is left out."""
    known = {name: value for name, value in fields.items() if value is not None}
    write = logger.info if level <= logging.INFO else logger.warning if level == logging.WARNING else logger.error
    write(message, extra={"event": event, **known})


@lru_cache(maxsize=1)
def _metrics() -> AmazonCloudWatchEMFProvider:
    # Only when there is something to measure: importing it costs a tenth of the start.
    from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider  # noqa: PLC0415

    metrics = AmazonCloudWatchEMFProvider()
    # The stack names the namespace after its project, in POWERTOOLS_METRICS_NAMESPACE.
    metrics.namespace = metrics.namespace or METRICS_NAMESPACE
    # The contract's only dimension is the stage: a service dimension would give the metrics another identity.
    metrics.service = ""
    return metrics


def measure(  # noqa: PLR0913 - the contract's metrics
    stage: str,
    *,
    applied: int,
    duration_ms: int,
    failed: bool,
    lock_wait_ms: int,
    lock_retries: int,
    outcome: str | None = None,
) -> None:
    """Print one run's metrics in CloudWatch's embedded metric format.

    ``outcome`` is what became of a rollout's target, if that is known by now.
    """
    from aws_lambda_powertools.metrics import MetricUnit  # noqa: PLC0415 - as above

    metrics = _metrics()
    metrics.add_dimension(name="stage", value=stage)
    metrics.add_metric(name="RevisionsApplied", unit=MetricUnit.Count, value=applied)
    metrics.add_metric(name="MigrationDuration", unit=MetricUnit.Milliseconds, value=duration_ms)
    metrics.add_metric(name="MigrationFailures", unit=MetricUnit.Count, value=int(failed))
    metrics.add_metric(name="LockWait", unit=MetricUnit.Milliseconds, value=lock_wait_ms)
    metrics.add_metric(name="LockRetries", unit=MetricUnit.Count, value=lock_retries)
    if outcome in TARGET_METRICS:
        metrics.add_metric(name=TARGET_METRICS[outcome], unit=MetricUnit.Count, value=1)
    metrics.flush_metrics()
