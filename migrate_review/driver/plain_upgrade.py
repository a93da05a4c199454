"""Upgrades as ``alembic upgrade`` does, without measuring, and reads the state of the session before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.runtime.environment import EnvironmentContext

from lambda_migrate.env_py import alembic_hook, tree
from lambda_migrate.env_py.transactions import rows_between
from migrate_review.driver.failures import described

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.migration import MigrationContext

    from migrate_review.driver.env_py import EnvPy


# State that revisions may leave in a session for later ones: its role, settings and temporary objects.
_SESSION = """
SELECT json_build_object(
    'role', current_user, 'schema', current_schema(), 'search_path', current_setting('search_path'),
    'settings', (SELECT json_object_agg(name, setting ORDER BY name) FROM pg_catalog.pg_settings
                 WHERE source = 'session' AND name <> 'application_name' AND name !~ '^transaction_'),
    'schemas', (SELECT json_agg(nspname ORDER BY nspname) FROM pg_catalog.pg_namespace
                WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')),
    'temporary', (SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())
)::text
"""


def replay(env_py: EnvPy, revision: str) -> dict[str, Any]:
    """Upgrade as ``alembic upgrade`` does. Return the place of each of env.py's version tables, and the sessions.

    env.py decides about the transactions.
    """
    calls: list[dict[str, Any]] = []

    def steps(heads: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        planned = tree.upgrade_steps(env_py.script, revision, heads)
        found = {
            "configured": [context.version_table_schema, context.version_table],
            "heads": [],
            "steps": len(planned),
            "before": rows_between(connection, _SESSION)[0][0],
        }
        calls.append(found)
        yield from planned
        found["after"] = rows_between(connection, _SESSION)[0][0]

    def note_heads(*, heads: set[str], **_: Any) -> None:  # noqa: ANN401
        calls[-1]["heads"] = sorted(heads)

    with EnvironmentContext(env_py.config(), env_py.script, fn=steps, destination_rev=revision) as environment:
        # Without `alembic_hook`, which decides about the transactions.
        configure = environment.configure

        def wrapped(connection: Any = None, *args: Any, **options: Any) -> None:  # noqa: ANN401
            env_py.prepare(connection)
            if env_py.job.schema is not None:
                options["version_table_schema"] = env_py.job.schema
                connection.dialect.default_schema_name = env_py.job.schema
            alembic_hook.call_on_version_apply(options, note_heads)
            configure(connection, *args, **options)

        environment.configure = wrapped  # type: ignore[method-assign]
        try:
            env_py.run_to_its_end(calls)
        except BaseException as error:
            if not calls:
                raise
            return {"calls": calls, "failure": described(error, env_py.folder)}
    return {"calls": calls, "failure": None}
