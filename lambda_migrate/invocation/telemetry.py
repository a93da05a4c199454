"""Writes log lines and metrics, and keeps secrets out of them.

Each line is one JSON object. `Event` lists the names of events, on which dashboards and saved queries rely.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from aws_lambda_powertools import Logger

from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.redaction import may_hold_secret, redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

    from lambda_migrate.invocation.result import RunState

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
    "schema.untrusted",
    "index.dropped",
    "statement.skipped",
    "backend.output",
    "preflight.finished",
    "checkpoint.applied",
    "checkpoint.skipped",
]

METRICS_NAMESPACE = "template-saas/migrate"


def _serialize(line: Mapping[str, Any]) -> str:
    text = _as_json(line)
    # Most lines hold no secret, and checking the whole line is faster than checking each value.
    return _as_json(redacted(line)) if may_hold_secret(text) else text


def _as_json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, default=str, separators=(",", ":"))


# The metric that counts a rollout's targets, by their outcome.
TARGET_METRICS = {"migrated": "TargetsMigrated", "current": "TargetsCurrent", "failed": "TargetsFailed"}

# POWERTOOLS_SERVICE_NAME, set by the stack, names the service. Lambda's own handler on the root logger would print
# each line a second time, as text.
logger = Logger(
    json_serializer=_serialize,
    # Otherwise Powertools parses a message that happens to be JSON, such as a number.
    json_deserializer=str,
    location=None,
    # Lambda filters lines by their level only if it can read their time.
    use_rfc3339=True,
    log_record_order=["timestamp", "level", "event", "message"],
)


def set_level(level: str) -> None:
    """Set the level of the function's own lines.

    Powertools' own method would set Lambda's level instead. With JSON as its log format, Lambda sets
    ``AWS_LAMBDA_LOG_LEVEL`` for each function, to INFO by default.
    """
    logging.getLogger(logger.name).setLevel(level)


def log(event: Event, message: str, *, level: int = logging.INFO, **fields: Any) -> None:  # noqa: ANN401
    """Write one line about an event. ``fields`` are those of docs/contract.md#logs-and-metrics; it leaves out None."""
    known = {name: value for name, value in fields.items() if value is not None}
    write = logger.info if level <= logging.INFO else logger.warning if level == logging.WARNING else logger.error
    write(message, extra={"event": event, **known})


@lru_cache(maxsize=1)
def _metrics() -> AmazonCloudWatchEMFProvider:
    # This import takes a tenth of a cold start, so it waits until there are metrics to print.
    provider = load("aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch")
    metrics: AmazonCloudWatchEMFProvider = provider.AmazonCloudWatchEMFProvider()
    # The stack names the namespace after its project, in POWERTOOLS_METRICS_NAMESPACE.
    metrics.namespace = metrics.namespace or METRICS_NAMESPACE
    # Powertools would add the service to the dimension by which the first dashboards were made.
    metrics.service = ""
    return metrics


def measure(
    stage: str, state: RunState, *, applied: int, duration_ms: int, failed: bool, outcome: str | None = None
) -> None:
    """Print one run's metrics in CloudWatch's embedded metric format.

    ``outcome`` is the outcome of a rollout's target, if the run decided it.
    """
    metrics = _metrics()
    unit = load("aws_lambda_powertools.metrics").MetricUnit
    metrics.add_dimension(name="stage", value=stage)
    # Of two services in one account, which may share the stage's name, each has its own.
    metrics.add_dimensions(stage=stage, service=logger.service)
    metrics.add_metric(name="RevisionsApplied", unit=unit.Count, value=applied)
    metrics.add_metric(name="MigrationDuration", unit=unit.Milliseconds, value=duration_ms)
    metrics.add_metric(name="MigrationFailures", unit=unit.Count, value=int(failed))
    metrics.add_metric(name="LockWait", unit=unit.Milliseconds, value=state.lock_wait_ms)
    metrics.add_metric(name="LockRetries", unit=unit.Count, value=state.retries)
    if outcome in TARGET_METRICS:
        metrics.add_metric(name=TARGET_METRICS[outcome], unit=unit.Count, value=1)
    metrics.flush_metrics()
