"""A hook into Alembic's `EnvironmentContext`: each env.py hands its connection to ``context.configure()``.

Alembic must not find a transaction there that env.py did not begin. Alembic would leave the commit to env.py, which
does not know of the transaction, and everything would be rolled back. So `prepare` ends any transaction it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy

from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.runtime.environment import EnvironmentContext


def install(
    environment: EnvironmentContext,
    *,
    prepare: Callable[[sqlalchemy.Connection], None],
    set_held_open: Callable[[sqlalchemy.Connection, bool], None],
    change_options: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Wrap ``configure`` and ``run_migrations`` of this instance.

    ``prepare`` gets env.py's connection before Alembic does. ``change_options`` may change the options of
    ``configure``; each revision is committed on its own in any case. ``set_held_open`` gets whether env.py itself
    began a transaction around all revisions.

    The wrapped ``configure`` raises:
        ConfigurationError: env.py gives no connection, or comes from Alembic's multidb template.
    """
    # On the instance, because Alembic binds its `context` proxy to the exact class and would ignore a subclass.
    configure = environment.configure

    def wrapped(connection: Any = None, *args: Any, **options: Any) -> None:  # noqa: ANN401
        if options.get("upgrade_token", "upgrades") != "upgrades":
            raise ConfigurationError(
                "env.py is of Alembic's multidb template, for several databases: give each a tree of its own"
            )
        if connection is None and not environment.is_offline_mode():
            raise ConfigurationError("env.py gave context.configure() no connection, though it does not run offline")
        # For any other type, Alembic raises its own error.
        online = connection if isinstance(connection, sqlalchemy.Connection) else None
        if online is not None:
            prepare(online)
        options["transaction_per_migration"] = True
        change_options(options)
        configure(connection, *args, **options)
        if online is not None:
            set_held_open(online, online.in_transaction())
            _keep_transactions_of_env_py(
                environment, online, set_held_open, lambda: configure(connection, *args, **options)
            )

    environment.configure = wrapped  # type: ignore[method-assign]


def _keep_transactions_of_env_py(
    environment: EnvironmentContext,
    connection: sqlalchemy.Connection,
    set_held_open: Callable[[sqlalchemy.Connection, bool], None],
    configure_again: Callable[[], None],
) -> None:
    """Let Alembic see a transaction that env.py begins between ``configure`` and ``run_migrations``.

    Alembic looks for a transaction in ``configure`` only, and would commit this one after the first revision.
    """
    run_migrations = type(environment).run_migrations

    def wrapped(**options: Any) -> None:  # noqa: ANN401
        # Only this private attribute, the same in SQLAlchemy 2.0 and 2.1, distinguishes a transaction that env.py began
        # with `with` from one that its first statement began, which Alembic ends itself.
        if connection.in_transaction() and connection._trans_context_manager is not None:  # noqa: SLF001
            set_held_open(connection, True)  # noqa: FBT003 - the value of a setter
            configure_again()
        run_migrations(environment, **options)

    environment.run_migrations = wrapped  # type: ignore[method-assign]
