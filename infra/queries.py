"""The queries of the dashboard and the saved queries. docs/log-schema.json has their fields.

CloudWatch names the items of a list one by one: ``blocking_pids.0`` is the first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """A query of CloudWatch Logs Insights: its commands in order, and its title."""

    title: str
    commands: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the query in the form of the console."""
        return "\n| ".join(self.commands)


_ENDS = 'event in ["migration.finished", "migration.noop", "migration.ahead", "migration.failed"]'

LAST_RUNS = Query(
    "Last runs",
    (
        "fields @timestamp, action, database, event, error_type, revision, duration_ms, message, function_request_id",
        f"filter {_ENDS}",
        "sort @timestamp desc",
        "limit 50",
    ),
)
SLOWEST_REVISIONS = Query(
    "Slowest revisions",
    (
        "fields @timestamp, revision, description, duration_ms, database, function_request_id",
        'filter event = "revision.applied"',
        "sort duration_ms desc",
        "limit 20",
    ),
)
ESTIMATES = Query(
    "Estimated and real time of revisions",
    (
        "fields @timestamp, revision, estimated_ms, duration_ms, duration_ms / estimated_ms as ratio, database",
        'filter event = "revision.applied" and ispresent(estimated_ms)',
        "sort @timestamp desc",
        "limit 50",
    ),
)
FAILURES = Query(
    "Failures with SQLSTATE",
    (
        "fields @timestamp, error_type, sqlstate, revision, table, constraint, message, function_request_id",
        'filter event = "migration.failed"',
        "sort @timestamp desc",
        "limit 50",
    ),
)
LOCK_WAITS = Query(
    "Lock waits and who blocked",
    (
        "fields @timestamp, event, revision, attempt, duration_ms, blocking_pids.0, message, function_request_id",
        'filter event in ["lock.waiting", "revision.retried"] or error_type in ["MigrationLocked", "LockTimeout"]',
        "sort @timestamp desc",
        "limit 100",
    ),
)
OUTCOMES = Query(
    "Outcomes by error type",
    (f"filter {_ENDS}", "stats count(*) as runs by event, error_type", "sort runs desc"),
)
CURRENT_REVISION = Query(
    "Current revision, from the last finished run",
    (
        "fields @timestamp, revision, database, action, message",
        'filter event in ["migration.finished", "migration.noop", "migration.ahead"]',
        'filter action in ["upgrade", "downgrade", "stamp", "status"]',
        "sort @timestamp desc",
        "limit 1",
    ),
)

SAVED = (LAST_RUNS, SLOWEST_REVISIONS, FAILURES, LOCK_WAITS)
