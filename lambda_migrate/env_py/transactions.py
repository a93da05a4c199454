"""Decides whether each revision gets its own transaction, or all of them share env.py's.

Alembic itself runs all revisions in one transaction, unless env.py sets ``transaction_per_migration``. The function
commits each revision, so that a later failure does not undo it. But env.py or a revision may do something that holds
until the end of its transaction, such as SET LOCAL, set_config(.., true), SET CONSTRAINTS or a transaction-level lock,
and each later revision must find it. Then all of them share the transaction, as under Alembic itself. PostgreSQL does
not show which settings are local. So a statement of env.py is assumed to make one unless it plainly does not, and a
statement of a revision if its text has such words or calls a function of the database.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from lambda_migrate.database.qualified import literal, qualified
from lambda_migrate.env_py import driver_state
from lambda_migrate.env_py.statements import called, commits, is_local, rolls_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy
    from alembic.runtime.migration import MigrationContext

# Statements without an effect that ends with the transaction. A default for transactions is not one of them: it would
# apply to each later transaction, and under Alembic itself there is none.
_NOTHING_LOCAL = re.compile(
    r"SET\s+(SESSION\s+)?(?!(LOCAL|TRANSACTION|CONSTRAINTS|SESSION|CHARACTERISTICS)\b|(default_)?transaction_)"
    r"[\w.]+\s*(=|\s)[^()]*"
    r"|RESET\s+(?!ALL\b|(default_)?transaction_)[\w. ]+"
    r"|SHOW\s+[\w. ]+"
    r"|SELECT\s+(?!.*\bFOR\b)[^()]*"
    r"|CREATE\s+(SCHEMA|EXTENSION)\s+IF\s+NOT\s+EXISTS\s+[^()]*",
    re.IGNORECASE | re.DOTALL,
)


_OURS = ("sqlalchemy.", "alembic.", "lambda_migrate.", "migrate_review.")
# The functions among some names: whether each is PostgreSQL's own, or of an extension.
_FUNCTIONS = (
    "SELECT DISTINCT p.proname::text, (n.nspname = 'pg_catalog') OR EXISTS (SELECT FROM pg_depend d"
    " WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')"
    " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
    " WHERE p.proname = ANY (string_to_array({names}, ' ')::name[])"
)


class RollsBack(Exception):  # noqa: N818 - the name is part of the error's text
    """A revision ends its transaction without a commit, and Alembic itself would lose earlier revisions by it."""

    def __init__(self) -> None:
        super().__init__(
            "it ends its transaction without a commit (ROLLBACK, PREPARE TRANSACTION, or a COMMIT that the server"
            " refused). Alembic itself runs all revisions in one transaction, so it would lose the earlier ones."
            " Use a savepoint (with op.get_bind().begin_nested():) in its place"
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
        # The statements of the transaction that env.py is in, until the revisions begin.
        self._statements: list[str] = []
        self._listeners: dict[str, Callable[..., Any]] = {
            "before_cursor_execute": self._note,
            "after_cursor_execute": self._ran,
            "commit": lambda _: self._ended(),
            "rollback": lambda _: self._note_rollback(),
        }
        # True while Alembic runs revisions that it would run in one transaction.
        self._runs = False
        self._in_revision = False
        # True if that transaction has changes of env.py or of an earlier revision.
        self._has_earlier = False
        # True if the last statement is a COMMIT that the server has not confirmed.
        self._is_committing = False
        # True if the revision called the rollback() of SQLAlchemy's connection.
        self._has_rolled_back = False
        # The id of the transaction in which the revision took the driver's connection, if it did.
        self._bypassed: str | None = None
        # Functions that end with a revision's statement, as PostgreSQL's own do.
        self._harmless: set[str] = set()

    def install(self, *, shares: bool, commits: bool) -> None:
        """Take over this instance of Alembic's context.

        ``shares`` is True if Alembic itself would run all revisions in one transaction. Without ``commits``,
        ``context.begin_transaction()`` rolls back at its end, because the action must change nothing.
        """
        self._shares, self._commits = shares, commits
        # On the instance, because env.py and Alembic call the methods of this very object.
        self._context.run_migrations = self._run_migrations  # type: ignore[method-assign]
        if shares:
            self._context.begin_transaction = self._begin_transaction  # type: ignore[method-assign]
            for name, listener in self._listeners.items():
                event.listen(self._connection, name, listener)
            _on_driver_access(self._connection, self._bypass)

    def _note(self, _: Any, __: Any, statement: str, *___: Any) -> None:  # noqa: ANN401
        if self._runs and self._has_earlier and rolls_back(statement):
            raise RollsBack
        self._check_commit_was_not_refused()
        self._is_committing = commits(statement)
        if self._bypassed is not None and is_idle(self._connection):
            self._check_not_rolled_back()
            self._bypassed = None
            self._ended()
        self._statements.append(statement)
        if self._runs and not self._in_revision:
            # Alembic creates its version table.
            self._has_earlier |= "CREATE TABLE" in statement

    def _ran(self, *_: Any) -> None:  # noqa: ANN401
        if self._is_committing:
            self._is_committing = False
            self._ended()

    def _check_commit_was_not_refused(self) -> None:
        """Raise if the server refused the revision's last statement, a COMMIT, and the revision went on.

        Raises:
            RollsBack: it did.
        """
        refused, self._is_committing = self._is_committing, False
        if refused and self._in_revision and self._has_earlier:
            raise RollsBack

    def _ended(self) -> None:
        """Note that the transaction was committed, also with the changes of earlier revisions if a revision did it."""
        self._statements.clear()
        self._has_earlier &= not self._in_revision

    def _note_rollback(self) -> None:
        self._statements.clear()
        self._has_rolled_back |= self._in_revision

    def _bypass(self) -> None:
        """Note that the revision takes the driver's connection, past SQLAlchemy."""
        if self._in_revision and self._bypassed is None and not is_autocommit(self._connection):
            # The transaction gets an id by this.
            rows = _rows_past_sqlalchemy(self._connection, qualified("SELECT pg_current_xact_id()::text"))
            self._bypassed = str(rows[0][0])

    # Three attributes of Alembic's are private, and the same in each version from 1.13 to 1.20. `_transaction` is what
    # the end of env.py's `with context.begin_transaction()` commits.

    def _begin_transaction(self, _per_migration: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - as Alembic's own
        if _per_migration:
            return self._each() if self._runs else self._begin(_per_migration=True)
        if not self._commits:
            return self._rolled_back()
        # With this, Alembic would begin nothing here.
        self._context._transaction_per_migration = False  # noqa: SLF001
        try:
            return self._begin()
        finally:
            self._context._transaction_per_migration = True  # noqa: SLF001

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._connection.rollback()

    @contextmanager
    def _each(self) -> Iterator[None]:
        """Run one revision in a transaction, and commit it unless later revisions must find what ends with it."""
        self._statements.clear()
        self._has_rolled_back, self._bypassed, self._is_committing = False, None, False
        transaction = self._begin(_per_migration=True)
        try:
            self._in_revision = True
            try:
                yield
            finally:
                self._in_revision = False
            self._check_not_rolled_back()
        except BaseException as error:
            transaction.__exit__(type(error), error, error.__traceback__)
            raise
        if self._has_made_something_local():
            self._share()
        else:
            transaction.__exit__(None, None, None)
        self._has_earlier = True

    def _check_not_rolled_back(self) -> None:
        """Raise if the revision rolled back what Alembic itself would then lose.

        Raises:
            RollsBack: it did.
        """
        if self._has_rolled_back:
            # Alembic commits the transaction that it began, which has ended, and so loses the next one.
            raise RollsBack
        if self._bypassed is None or not self._has_earlier:
            return
        sql = qualified(f"SELECT pg_xact_status({literal(self._bypassed)}::xid8)")
        if _rows_past_sqlalchemy(self._connection, sql)[0][0] == "aborted":
            raise RollsBack

    def _share(self) -> None:
        """Run all revisions from now on in the transaction that is open."""
        self._set_held_open(self._connection, True)  # noqa: FBT003 - the value of a setter
        # Then Alembic neither begins nor commits a transaction for a revision.
        self._context._in_external_transaction = True  # noqa: SLF001

    def _has_made_something_local(self) -> bool:
        """Return whether the revision's transaction has an effect that ends with it."""
        if is_idle(self._connection):
            return False
        if self._bypassed is not None or any(map(is_local, self._statements)):
            return True
        names = set().union(*map(called, self._statements)) - self._harmless
        if not names:
            return False
        functions = _rows_past_sqlalchemy(
            self._connection, qualified(_FUNCTIONS.format(names=literal(" ".join(sorted(names)))))
        )
        self._harmless |= {name for name, harmless in functions if harmless}
        return not all(harmless for _, harmless in functions)

    def _run_migrations(self, **options: Any) -> None:  # noqa: ANN401 - the options of any revision
        connection = self._connection
        if _began_explicitly(connection) or (self._shares and self._may_have_made_something_local()):
            self._share()
        self._runs, self._shares = self._shares, False
        try:
            self._run_as_alembic(**options)
        finally:
            for name, listener in self._listeners.items() if self._runs else ():
                event.remove(connection, name, listener)
            self._runs = False

    def _run_as_alembic(self, **options: Any) -> None:  # noqa: ANN401 - as above
        context, connection = self._context, self._connection
        in_block = context._transaction is not None  # noqa: SLF001
        if not in_block or context._in_external_transaction:  # noqa: SLF001
            self._run(**options)
            return
        context._transaction = None  # noqa: SLF001
        self._run(**options)
        # env.py's block may continue with statements, which its end commits.
        context._transaction = connection.get_transaction() or connection.begin()  # noqa: SLF001

    def _may_have_made_something_local(self) -> bool:
        """Return whether the session is in a transaction whose statements may have an effect that ends with it."""
        if is_idle(self._connection):
            return False
        if self._statements:
            return not all(map(_makes_nothing_local, self._statements))
        # Code that bypasses SQLAlchemy has begun the transaction: a listener, or the driver's own cursor.
        return _status(self._connection) is not None


def _makes_nothing_local(statement: str) -> bool:
    return all(_NOTHING_LOCAL.fullmatch(each.strip()) for each in statement.split(";") if each.strip())


def _began_explicitly(connection: sqlalchemy.Connection) -> bool:
    """Return whether env.py began the transaction by `with connection.begin()`, and so commits it.

    Only this private attribute, the same in SQLAlchemy 2.0 and 2.1, distinguishes it from one that a statement began.
    """
    return connection.in_transaction() and connection._trans_context_manager is not None  # noqa: SLF001


def row_between(connection: sqlalchemy.Connection, sql: str) -> Any | None:  # noqa: ANN401 - a row of SQLAlchemy or the driver
    """Return the first row of a query of ours, or None, as `rows_between` does."""
    return next(iter(rows_between(connection, sql)), None)


def rows_between(connection: sqlalchemy.Connection, sql: str) -> list[Any]:
    """Return the rows of a query of ours, which leaves env.py's transactions as they are.

    It has a transaction of its own, which ends before Alembic looks for one, or is a part of the one that is open.
    """
    if connection.in_transaction():
        return [*connection.exec_driver_sql(sql)]
    if _status(connection) is False:
        # A listener for "connect" has begun a transaction that SQLAlchemy does not know, and would commit here.
        return _rows_past_sqlalchemy(connection, sql)
    with connection.begin():
        return [*connection.exec_driver_sql(sql)]


def _on_driver_access(connection: sqlalchemy.Connection, callback: Callable[[], None]) -> None:
    """Call back when code other than SQLAlchemy's, Alembic's and ours takes the driver's connection of a connection."""
    taken = type(connection).connection

    class Watched(type(connection)):  # type: ignore[misc]
        """A connection that reports who takes the driver's."""

        @property
        def connection(self) -> Any:  # noqa: ANN401
            if not sys._getframe(1).f_globals.get("__name__", "").startswith(_OURS):  # noqa: SLF001
                callback()
            return taken.__get__(self)

    connection.__class__ = Watched


def _rows_past_sqlalchemy(connection: sqlalchemy.Connection, sql: str) -> list[Any]:
    cursor = connection.connection.cursor()
    cursor.execute(sql)
    rows = [*cursor.fetchall()]
    cursor.close()
    return rows


def is_idle(connection: sqlalchemy.Connection) -> bool:
    """Return whether the session is in no transaction; see `driver_state`."""
    return driver_state.is_idle(connection.connection.dbapi_connection)


def is_autocommit(connection: sqlalchemy.Connection) -> bool:
    """Return whether the session commits each statement."""
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


def _status(connection: sqlalchemy.Connection) -> bool | None:
    return driver_state.status(connection.connection.dbapi_connection)
