"""Decides whether each revision gets its own transaction, or all of them share env.py's.

Plain Alembic runs all revisions in one transaction, unless env.py sets ``transaction_per_migration``. The function
commits each revision, so that a later failure does not undo it. There are two exceptions, in which all revisions share
one transaction:

- env.py executes a statement whose effect ends with the transaction, such as SET LOCAL, set_config(.., true),
  SET CONSTRAINTS or a transaction-level lock. Every revision must see this effect. PostgreSQL does not show which
  settings are local, so any statement counts that is not on a list of harmless ones.
- env.py may roll the revisions back after they have run, as in a dry run.
"""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from lambda_migrate.env_py import driver_state
from lambda_migrate.env_py.sqlalchemy_versions import begins_by_itself, rollback
from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import sqlalchemy
    from alembic.runtime.migration import MigrationContext

# The key in Alembic's `opts` for whether env.py has set ``transaction_per_migration``, which the function always sets.
COMMITS_EACH = "env_py_commits_each"
# The execution option of a connection that env.py gets from its caller (``config.attributes["connection"]``).
OF_THE_CALLER = "of_the_caller"

# Statements without an effect that ends with the transaction. SET default_transaction_... is not one of them: it would
# apply to every later transaction, of which plain Alembic has none.
_WITHOUT_LOCAL_EFFECT = re.compile(
    r"SET\s+(SESSION\s+)?(?!(LOCAL|TRANSACTION|CONSTRAINTS|SESSION|CHARACTERISTICS)\b|(default_)?transaction_)"
    r"[\w.]+\s*(=|\s)[^()]*"
    r"|RESET\s+(?!ALL\b|(default_)?transaction_)[\w. ]+"
    r"|SHOW\s+[\w. ]+"
    r"|SELECT\s+(?!.*\bFOR\b)[^()]*"
    r"|CREATE\s+(SCHEMA|EXTENSION)\s+IF\s+NOT\s+EXISTS\s+[^()]*",
    re.IGNORECASE | re.DOTALL,
)
_LOCAL_WITHOUT_TRANSACTION = (
    "env.py executes a statement whose effect may end with its transaction, and SQLAlchemy 1.4 commits the next one by"
    " itself: put both into `with context.begin_transaction():`; no revision was run"
)


class Transactions:
    """The transactions of one ``context.configure()``, between env.py and Alembic."""

    def __init__(
        self,
        context: MigrationContext,
        connection: sqlalchemy.Connection,
        set_held_open: Callable[[sqlalchemy.Connection, bool], None],
    ) -> None:
        self._context = context
        self._connection = connection
        self._set_held_open = set_held_open
        self._begin = context.begin_transaction
        self._run = context.run_migrations
        self._shares = False
        self._commits = False
        self._env_py: Path | None = None
        # True if env.py has rolled back what the function had committed for it.
        self.is_discarded = False
        # The statements of the transaction that env.py is in, until the revisions begin.
        self._statements: list[str] = []
        self._listeners: dict[str, Callable[..., Any]] = {
            "before_cursor_execute": self._note,
            "commit": lambda _: self._statements.clear(),
            "rollback": lambda _: self._statements.clear(),
        }

    def install(self, env_py: Path, *, shares: bool, commits: bool) -> None:
        """Replace two methods of this instance of Alembic's context.

        ``shares`` is True if plain Alembic would run all revisions in one transaction. Without ``commits``,
        ``context.begin_transaction()`` rolls back at its end, because the action must change nothing.
        """
        self._env_py, self._shares, self._commits = env_py, shares, commits
        # On the instance, because env.py and Alembic call the methods of this very object.
        self._context.run_migrations = self._run_migrations  # type: ignore[method-assign]
        if shares:
            self._context.begin_transaction = self._begin_transaction  # type: ignore[method-assign]
            for name, listener in self._listeners.items():
                event.listen(self._connection, name, listener)

    def _note(self, _: Any, __: Any, statement: str, *___: Any) -> None:  # noqa: ANN401
        self._statements.append(statement)

    # Three attributes of Alembic's are private, and tested with 1.8 to 1.20. The end of env.py's
    # `with context.begin_transaction()` commits `_transaction`.

    def _begin_transaction(self, _per_migration: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - as Alembic's own
        if _per_migration:
            return self._begin(_per_migration=True)
        if not self._commits:
            return self._rolled_back()
        # With True, Alembic's begin_transaction() would begin nothing.
        self._context._transaction_per_migration = False  # noqa: SLF001
        try:
            return self._begin()
        finally:
            self._context._transaction_per_migration = True  # noqa: SLF001

    @contextmanager
    def _rolled_back(self) -> Iterator[SimpleNamespace]:
        try:
            yield SimpleNamespace(commit=lambda: None, rollback=lambda: rollback(self._connection))
        finally:
            rollback(self._connection)

    def _run_migrations(self, **options: Any) -> None:  # noqa: ANN401 - the options of any revision
        context, connection = self._context, self._connection
        in_block = context._transaction is not None  # noqa: SLF001
        of_caller = context._in_external_transaction  # noqa: SLF001
        shares = self._shares and (self._may_have_local_effect() or (in_block and self._may_discard()))
        if self._is_in_env_pys_transaction() or shares:
            if self._commits and not (connection.in_transaction() or begins_by_itself(connection)):
                raise ConfigurationError(_LOCAL_WITHOUT_TRANSACTION)
            self._set_held_open(connection, True)  # noqa: FBT003 - the value of a setter
            # Then Alembic neither begins nor commits a transaction for a revision.
            context._in_external_transaction = True  # noqa: SLF001
        for name, listener in self._listeners.items() if self._shares else ():
            event.remove(self._connection, name, listener)
        self._shares = False
        if not in_block or context._in_external_transaction:  # noqa: SLF001
            try:
                self._run(**options)
            finally:
                if in_block:  # restored, because Alembic commits a second block of env.py itself
                    context._in_external_transaction = of_caller  # noqa: SLF001
            return
        context._transaction = None  # noqa: SLF001
        self._run(**options)
        # env.py's block may continue with statements, which its end commits.
        context._transaction = connection.get_transaction() or connection.begin()  # noqa: SLF001
        event.listen(connection, "rollback", self._note_rollback)

    def _note_rollback(self, _: sqlalchemy.Connection) -> None:
        # Alembic forgets the transaction of env.py's block when the block ends.
        self.is_discarded |= self._context._transaction is not None  # noqa: SLF001

    def _may_discard(self) -> bool:
        return self._commits and self._env_py is not None and _source_may_discard(self._env_py)

    def _is_in_env_pys_transaction(self) -> bool:
        """Return whether env.py, and not Alembic, commits the revisions or rolls them back.

        Without ``with context.begin_transaction()`` around it, Alembic begins no transaction for all revisions. On a
        connection of the caller, the caller commits, which is this function.
        """
        connection = self._connection
        in_block = self._context._transaction is not None or self._context._in_external_transaction  # noqa: SLF001
        if _began_explicitly(connection):
            return True
        if connection.get_execution_options().get(OF_THE_CALLER):
            return False
        begins = begins_by_itself(connection) or connection.in_transaction()
        return self._shares and not in_block and begins and not is_autocommit(connection)

    def _may_have_local_effect(self) -> bool:
        """Return whether the session is in a transaction whose statements may have an effect that ends with it."""
        if is_idle(self._connection):
            return False
        if self._statements:
            return not all(map(_has_no_local_effect, self._statements))
        # Code that bypasses SQLAlchemy has begun the transaction: a listener, or the driver's own cursor.
        return _status(self._connection) is not None


def _source_may_discard(env_py: Path) -> bool:
    """Return whether env.py may roll its revisions back, raise or exit, after they have run, in its block.

    Its block is `with context.begin_transaction():`. Exception handlers do not count.
    """
    try:
        module = ast.parse(env_py.read_bytes())
    except OSError:  # a tree without sources
        return False
    blocks = (node for node in ast.walk(module) if isinstance(node, ast.With) and any(map(_begins, node.items)))
    return any(
        isinstance(node, (ast.Raise, ast.Assert)) or _name(node) in {"rollback", "exit", "_exit", "quit"}
        for block in blocks
        for statement in _after_revisions(block.body)
        for node in ast.walk(statement)
    )


def _name(node: ast.AST) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def _after_revisions(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run after the revisions have run without an error."""
    for number, statement in enumerate(body):
        if not _runs_migrations(statement):
            continue
        match statement:
            case ast.Try():
                yield from (*_after_revisions(statement.body), *statement.orelse, *statement.finalbody)
            case ast.If() | ast.With() | ast.For() | ast.While():
                yield from _after_revisions(statement.body)
                yield from _after_revisions(getattr(statement, "orelse", ()))
        yield from body[number + 1 :]
        return


def _runs_migrations(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "run_migrations" for node in ast.walk(statement))


def _begins(item: ast.withitem) -> bool:
    call = item.context_expr
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "begin_transaction"


def _has_no_local_effect(statement: str) -> bool:
    return all(_WITHOUT_LOCAL_EFFECT.fullmatch(each.strip()) for each in statement.split(";") if each.strip())


def _began_explicitly(connection: sqlalchemy.Connection) -> bool:
    """Return whether env.py began the transaction by `with connection.begin()`, and so commits it.

    Only this private attribute, the same from SQLAlchemy 1.4 to 2.1, distinguishes it from one that a statement began.
    """
    return connection.in_transaction() and connection._trans_context_manager is not None  # noqa: SLF001


def row_between(connection: sqlalchemy.Connection, sql: str) -> Any | None:  # noqa: ANN401 - a row of SQLAlchemy or the driver
    """Return the first row of a query of the function, or None, as `rows_between` does."""
    return next(iter(rows_between(connection, sql)), None)


def rows_between(connection: sqlalchemy.Connection, sql: str) -> list[Any]:
    """Run a query of the function between two of env.py's statements, without a change of env.py's transaction.

    The query runs in the open transaction, or in one of its own that ends at once.
    """
    if connection.in_transaction():
        return [*connection.exec_driver_sql(sql)]
    if _status(connection) is False:
        # A listener for "connect" has begun a transaction that SQLAlchemy does not know, and would commit here.
        cursor = connection.connection.cursor()
        cursor.execute(sql)
        rows = [*cursor.fetchall()]
        cursor.close()
        return rows
    with connection.begin():
        return [*connection.exec_driver_sql(sql)]


def is_idle(connection: sqlalchemy.Connection) -> bool:
    """Return whether the session is not in a transaction; see `driver_state`."""
    return driver_state.is_idle(connection.connection.dbapi_connection)


def is_autocommit(connection: sqlalchemy.Connection) -> bool:
    """Return whether the session commits each statement."""
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


def _status(connection: sqlalchemy.Connection) -> bool | None:
    return driver_state.status(connection.connection.dbapi_connection)
