"""A rollout's report as `lambda_migrate.fleet.report` writes it, of any size."""

from __future__ import annotations

from typing import Any

HEAD, BEFORE, OLDER = "7c1e5a90d2f4", "4b8e2f6a1c93", "1f0c3d5e7a9b"


def failure(number: int = 1, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """One entry of ``failures``."""
    kinds = ("MigrationFailed", "LockTimeout", "DatabaseUnavailable")
    messages = (
        f'revision {HEAD} failed (23505): could not create unique index "users_email_key"',
        "revision 4b8e2f6a1c93 could not lock table orders in 10 attempts: pid 4711 (report-worker) is in the way",
        "no connection within 60 s: connection refused",
    )
    return {
        "name": f"tenant-{number:05}",
        "target": {"secret_id": f"tenants/{number:05}", "schema": None},
        "server": f"db-{number % 4}.example.internal:5432",
        "wave": 2,
        "error_type": kinds[number % 3],
        "message": messages[number % 3],
        "runs": 0,
        **changes,
    }


def target(number: int = 1, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """One line of targets.jsonl. One of five is behind."""
    behind = number % 5 == 0
    return {
        "name": f"tenant-{number:05}",
        "target": {"schema": f"t{number:05}"},
        "server": f"db-{number % 4}",
        "wave": 2,
        "outcome": "behind" if behind else "current",
        "revision": OLDER if number % 10 == 5 else BEFORE if behind else HEAD,
        "duration_ms": 1_005 + number % 1000,
        **changes,
    }


def report(failed: int = 0, *, left: int = 0, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the report of 12,000 targets in two waves, with so many failures and untouched targets in the second."""
    waves = [
        _wave(1, 20, 0, 0, canary=True),
        _wave(2, 11_980, failed, left, canary=False),
    ]
    counts = {what: sum(wave[what] for wave in waves) for what in ("migrated", "current", "behind", "failed", "left")}
    return {
        "rollout": "2026-11-23T22-24-00-mona",
        "stage": "prod",
        "plan": False,
        "started": "2026-11-23T22:24:00.000Z",
        "ended": "2026-11-23T22:41:37.512Z",
        "duration_ms": 1_057_512,
        "status": "failed" if left else "succeeded",
        "message": f"{failed} of the 11980 targets of wave 2 failed, 100 are tolerated;"
        f" {left} of 12000 were not started",
        "counts": {"targets": 12_000, **counts},
        "waves": waves,
        "revisions": {HEAD: 12_000 - failed - left - 40, BEFORE: 37, OLDER: 2, "base": 1},
        "failures": [failure(number) for number in range(failed)],
        "slowest": [{"name": f"tenant-{number:05}", "duration_ms": 91_234 // number} for number in range(1, 11)],
        **changes,
    }


def _wave(number: int, targets: int, failed: int, left: int, *, canary: bool) -> dict[str, Any]:
    current = 0 if canary else 412
    return {
        "wave": number,
        "canary": canary,
        "targets": targets,
        "tolerated_failures": 0 if canary else 100,
        "migrated": targets - current - failed - left,
        "current": current,
        "behind": 0,
        "failed": failed,
        "left": left,
    }


def planned() -> dict[str, Any]:
    """Return a plan of three revisions: one would fail, one blocks for long, one is harmless."""
    users = _table("users", 3_100_000, 921_600_000, "reads and writes")
    not_null: dict[str, Any] = {
        "check": "not_null",
        "table": "users",
        "columns": ["mail"],
        "result": "failed",
        "violations": 2,
    }
    not_null["query"] = 'SELECT * FROM users WHERE "mail" IS NULL'
    foreign: dict[str, Any] = {
        "check": "foreign_key",
        "table": "orders",
        "columns": ["user_id"],
        "result": "passed",
        "violations": 0,
    }
    reader = {"pid": 4711, "application_name": "report", "since": "09:12:04", "table": "users"}
    orders = _table("orders", 20_400_000, 4_509_715_660, "writes", 31_500)
    blocker = {**reader, "kind": "idle in transaction"}
    both = [orders, {**users, "blocks": "writes", "estimated_ms": 31_500}]
    refers = {**foreign, "query": "SELECT 1"}
    slow, fine = {**users, "estimated_ms": 5_900}, {**users, "estimated_ms": 8}
    revisions: tuple[tuple[str, str, str, list[Any], list[Any], list[Any], list[int]], ...] = (
        ("4b1f0d9c7e21", "Require the mail of users", "fails", [slow], [not_null], [blocker], [2_600, 5_900]),
        ("8d20c6a5f913", "Refer from orders to users", "slow", both, [refers], [], [14_000, 31_500]),
        ("c93e7b52d0aa", "Add notes", "ok", [fine], [], [], [4, 8]),
    )
    plan = [
        {
            "revision": revision,
            "description": description,
            "sql": "",
            "preflight": {
                "verdict": verdict,
                "tables": tables,
                "checks": checks,
                "blockers": blockers,
                "estimated_ms": estimated,
                "acknowledged": {},
            },
        }
        for revision, description, verdict, tables, checks, blockers, estimated in revisions
    ]
    slot = {"kind": "replication slot", "message": "replication slot reports is not read and keeps 3.2 GB of WAL"}
    return {"action": "plan", "plan": plan, "holdups": [slot]}


def _table(name: str, rows: int, size: int, blocks: str, estimated_ms: int | None = None) -> dict[str, Any]:
    lock = "SHARE ROW EXCLUSIVE" if blocks == "writes" else "ACCESS EXCLUSIVE"
    shown = {"table": name, "rows": rows, "bytes": size, "lock": lock, "blocks": blocks}
    return {**shown, "reads_all": True, "rewrites": False, "estimated_ms": estimated_ms}
