"""A hook into Alembic's `EnvironmentContext`: each env.py hands its connection to ``context.configure()``.

Alembic must not find a transaction there that env.py did not begin. Alembic would leave the commit to env.py, which
does not know of the transaction, and everything would be rolled back. So `prepare` ends any transaction it begins.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

from lambda_migrate.env_py.transactions import COMMITS_EACH, Transactions
from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext


def install(  # noqa: PLR0913 - what a run and a review do differently
    environment: EnvironmentContext,
    *,
    prepare: Callable[[sqlalchemy.Connection], None],
    set_held_open: Callable[[sqlalchemy.Connection, bool], None],
    change_options: Callable[[dict[str, Any]], None] = lambda _: None,
    commits: bool = True,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    before_revisions: Callable[[MigrationContext], None] | None = None,
) -> list[Transactions]:
    """Wrap ``configure`` and ``run_migrations`` of this instance. Return the transactions of each call, as they come.

    ``prepare`` gets env.py's connection before Alembic does. ``change_options`` may change the options of
    ``configure``. Each revision is committed on its own, unless `Transactions` finds that all must share one
    transaction: ``set_held_open`` gets whether they do. Without ``commits``, no transaction of env.py is committed.
    ``run_migrations`` runs within ``around``.
    ``before_revisions`` is called when env.py runs its migrations, before Alembic reads the version table.

    The wrapped ``configure`` raises:
        ConfigurationError: env.py gives no connection, asks for SQL, comes from Alembic's multidb template, or calls it
            in another process.
    """
    installed: list[Transactions] = []
    process = os.getpid()
    # On the instance, because Alembic binds its `context` proxy to the exact class and would ignore a subclass.
    configure, run_migrations = environment.configure, environment.run_migrations

    def wrapped(connection: Any = None, *args: Any, **options: Any) -> None:  # noqa: ANN401
        if os.getpid() != process:
            raise ConfigurationError("env.py runs its migrations in a process that it starts: run them in its own")
        _check_options(connection, options, is_offline=environment.is_offline_mode())
        # For any other type, Alembic raises its own error.
        online = connection if isinstance(connection, sqlalchemy.engine.Connection) else None
        if online is not None:
            prepare(online)
        per_revision = bool(options.get("transaction_per_migration"))
        options["transaction_per_migration"] = True
        change_options(options)
        configure(connection, *args, **options)
        if online is not None:
            held_open = online.in_transaction()
            set_held_open(online, held_open)
            context = environment.get_context()
            context.opts[COMMITS_EACH] = per_revision
            if before_revisions is not None:
                _call_before(context, before_revisions)
            # In a transaction that env.py began before, Alembic begins and commits none.
            if not (held_open or context.as_sql):
                shares = not per_revision and context.impl.transactional_ddl
                installed.append(Transactions(context, online, set_held_open))
                installed[-1].install(Path(environment.script.dir, "env.py"), shares=shares, commits=commits)

    def run_wrapped(**options: Any) -> None:  # noqa: ANN401
        with around():
            run_migrations(**options)

    environment.configure = wrapped  # type: ignore[method-assign]
    environment.run_migrations = run_wrapped  # type: ignore[method-assign]
    return installed


def call_on_version_apply(options: dict[str, Any], callback: Callable[..., None]) -> None:
    """Add a callback to those of env.py, which Alembic calls when it has written a version."""
    given = options.get("on_version_apply") or ()
    options["on_version_apply"] = (*((given,) if callable(given) else given), callback)


def _check_options(connection: object, options: Mapping[str, Any], *, is_offline: bool) -> None:
    if options.get("upgrade_token", "upgrades") != "upgrades":
        raise ConfigurationError(
            "env.py is of Alembic's multidb template, for several databases: give each a tree of its own"
        )
    if connection is None and not is_offline:
        raise ConfigurationError("env.py gave context.configure() no connection, though it does not run offline")
    if options.get("as_sql") and not is_offline:
        raise ConfigurationError("env.py gives context.configure() as_sql, so Alembic would only print the SQL")


def _call_before(context: MigrationContext, before_revisions: Callable[[MigrationContext], None]) -> None:
    run = context.run_migrations

    def both(**options: Any) -> None:  # noqa: ANN401 - whatever the revisions take
        before_revisions(context)
        run(**options)

    # On the instance, as above. `Transactions` calls this one when it has decided who commits.
    context.run_migrations = both  # type: ignore[method-assign]
