"""Applies revisions, and runs one with every statement measured."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from migrate_review.driver.failures import RefusedError, failure
from migrate_review.driver.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from alembic.runtime.migration import MigrationContext

    from migrate_review.driver.env_py import EnvPy
    from migrate_review.driver.wire import Wire


def apply(env_py: EnvPy, wire: Wire, revisions: Sequence[str]) -> dict[str, Any]:
    """Apply these revisions in order, without measuring. Return those that were applied."""
    done: list[str] = []
    found: dict[str, Any] = {"applied": done}

    def steps(_: object, context: MigrationContext) -> Iterator[Any]:
        for revision in revisions:
            wire.write({"began": revision})
            yield from env_py.run_step(context, env_py.step("upgrade", revision))
            done.append(revision)

    try:
        found |= env_py.run(steps)
    except RefusedError:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit in a revision included
        found["failure"] = failure(error)
    return found


def step(
    env_py: EnvPy, wire: Wire, direction: str, revision: str, tables: Mapping[str, str], rows: Mapping[str, int]
) -> dict[str, Any]:
    """Run one revision in one direction. Return the measurements of its statements."""
    watch = Watch(
        {int(oid): name for oid, name in tables.items()},
        {int(oid): count for oid, count in rows.items()},
        partial(_outside_locks, wire),
    )

    def steps(_: object, context: MigrationContext) -> Iterator[Any]:
        step = env_py.step(direction, revision)
        run = step.migration_fn
        watch.source = env_py.loaded_branches.source if env_py.loaded_branches is not None else ""

        @wraps(run)
        def watched(**options: Any) -> None:  # noqa: ANN401
            before = _sessions(wire)
            with watch.watching():
                run(**options)
            opened = _sessions(wire) - before
            if opened:
                several = "another connection" if opened == 1 else f"{opened} more connections"
                watch.left_out.append(f"it opened {several} to the database, whose statements the review does not see")

        step.migration_fn = watched
        assert context.connection is not None  # noqa: S101 - online, so there is one
        watch.attach(context.connection)
        yield from env_py.run_step(context, step)

    found: dict[str, Any] = {"failure": None}
    try:
        found |= env_py.run(steps)
    except RefusedError:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit in a revision included
        found["failure"] = {**failure(error), "sql": watch.failed_sql}
    left_out = watch.left_out if direction == "upgrade" else []
    if direction == "upgrade" and env_py.loaded_branches is not None:
        left_out += [f"it did not run {part}" for part in env_py.loaded_branches.left_out()]
    return {**found, "statements": watch.statements, "idle_ms": watch.idle_ms, "left_out": left_out}


def _sessions(wire: Wire) -> int:
    """Return the number of sessions that the review's database has had, without the review's own."""
    wire.write({"count_sessions": True})
    answer = wire.read()
    return answer["sessions"] if answer else 0


def _outside_locks(wire: Wire, pid: int | None) -> list[tuple[int, str]]:
    """Let the other end watch the locks of the server process ``pid``. With None, return the locks that it saw."""
    wire.write({"look_at": pid})
    answer = wire.read()
    return [(oid, mode) for oid, mode in answer["locks"]] if answer else []
