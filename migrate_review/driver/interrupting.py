"""Stops a revision as a killed process would end it, and runs it again as the function does."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from migrate_review.driver.failures import RefusedError, failure
from migrate_review.driver.watching import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.migration import MigrationContext

    from migrate_review.driver.env_py import EnvPy


class _StoppedError(BaseException):
    """A revision was stopped. The revision's own ``except Exception`` must not catch it, as it catches no kill."""


def stop(env_py: EnvPy, revision: str, before: int) -> dict[str, Any]:
    """Begin the upgrade of a revision, and stop it before the statement with this number, counted from 0."""
    found = {"stopped": False}

    def steps(heads: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401
        step = env_py.step("upgrade", revision)
        run = step.migration_fn
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        left = before
        journal = env_py.resuming.start(revision, heads, context)

        def count(*_: object) -> None:
            nonlocal left
            if journal.is_busy:
                return
            if not left:
                found["stopped"] = True
                raise _StoppedError  # SQLAlchemy closes the connection, and the server rolls back what is open
            left -= 1

        @wraps(run)
        def stopped(**options: Any) -> None:  # noqa: ANN401
            event.listen(connection, "before_cursor_execute", count)
            try:
                run(**options)
            finally:
                event.remove(connection, "before_cursor_execute", count)

        step.migration_fn = stopped
        yield from env_py.run_step(context, step)

    try:
        with env_py.resuming:
            env_py.run(steps)
    except RefusedError:
        raise
    except BaseException:  # noqa: BLE001, S110 - ours, or an error of the closed connection
        pass
    return found


def resume(env_py: EnvPy, revision: str) -> dict[str, Any]:
    """Run the upgrade of a stopped revision again. Like the function, skip the committed statements."""
    failed: list[str] = []

    def note(context: Any) -> None:  # noqa: ANN401 - SQLAlchemy's ExceptionContext
        if context.statement is not None:
            failed.append(bound(None, context.statement, context.parameters))

    def steps(heads: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401
        assert context.connection is not None  # noqa: S101 - online, so there is one
        event.listen(context.connection.engine, "handle_error", note)
        env_py.resuming.start(revision, heads, context)
        yield from env_py.run_step(context, env_py.step("upgrade", revision))

    found: dict[str, Any] = {"failure": None}
    try:
        with env_py.resuming:
            found |= env_py.run(steps)
    except RefusedError:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit in a revision included
        found["failure"] = {**failure(error), "sql": failed[-1] if failed else None}
    return found
