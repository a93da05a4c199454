"""Keeps every session of env.py from committing, for status, plan and check.

Each session that env.py, the application or a revision opens is held in one transaction, from its first statement to
its end. A commit becomes a savepoint, and a rollback returns to the last savepoint, so env.py sees what it has
"committed".

- At first the transaction is read-only. PostgreSQL refuses writes, including nextval().
- Some env.py files must write before Alembic reads the version table: they create their schema, or objects to compare.
  Then the supervisor runs env.py again, in transactions that may write. Each of them first inserts a row that violates
  a deferred constraint, so any COMMIT fails and rolls back.

Outside of these transactions the sessions are read-only by default. Sessions of psycopg2, psycopg and pg8000 are held
even if env.py opens them without SQLAlchemy. Those of async drivers without SQLAlchemy are only read-only by default.
"""

from __future__ import annotations

import importlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event

from lambda_migrate.database.qualified import qualified
from lambda_migrate.env_py.connection import OTHER_POOLER
from lambda_migrate.env_py.driver_errors import server_error
from lambda_migrate.env_py.driver_state import is_idle, pid_at_connect
from lambda_migrate.env_py.messages import NEVER_COMMITTED, READ_ONLY
from lambda_migrate.env_py.sqlalchemy_versions import POOLED
from lambda_migrate.env_py.statements import may_control_transaction, split
from lambda_migrate.env_py.transactions import row_between
from lambda_migrate.invocation.errors import ConfigurationError, PoolerRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_migrate.env_py.messages import Failure, Job

_INSUFFICIENT_PRIVILEGE = "42501"

_POINT = "looking"
# Executed in place of a commit, a rollback, and a statement that begins a transaction or is skipped.
_SAVEPOINT, _TO_SAVEPOINT, _NOTHING = f"SAVEPOINT {_POINT}", f"ROLLBACK TO SAVEPOINT {_POINT}", "SELECT 1"
_WRITABLE = (
    "SET TRANSACTION READ WRITE",
    f"CREATE TEMPORARY TABLE pg_temp.looking (n int CONSTRAINT {NEVER_COMMITTED} UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    "INSERT INTO pg_temp.looking VALUES (1), (1)",
)
_DEFAULT = "default_transaction_read_only"

_COMMENTS = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
_EMPTY = re.compile(_COMMENTS, re.DOTALL)
_CONTROL = tuple(
    (re.compile(rf"{_COMMENTS}(?:{words})\s*{_COMMENTS}", re.IGNORECASE | re.DOTALL), instead)
    for words, instead in (
        (r"(?:COMMIT|END)(?:\s+(?:WORK|TRANSACTION))?", _SAVEPOINT),
        (r"(?:ROLLBACK|ABORT)(?:\s+(?:WORK|TRANSACTION))?", _TO_SAVEPOINT),
        (r"(?:BEGIN|(?:START|SET|PREPARE)\s+TRANSACTION)\b[^;]*", _NOTHING),
        (r"COMMIT\s+PREPARED\b[^;]*", _SAVEPOINT),
        (r"ROLLBACK\s+PREPARED\b[^;]*", _TO_SAVEPOINT),
    )
)
_READ_WRITE = re.compile(
    rf"{_COMMENTS}(?:BEGIN|START\s+TRANSACTION|SET\s+TRANSACTION)\b[^;]*\bREAD\s+WRITE\b[^;]*;?\s*",
    re.IGNORECASE | re.DOTALL,
)
# Effects that no rollback reverts and no read-only transaction refuses.
_LASTING = re.compile(
    r"\b(dblink_exec|dblink_send_query|dblink|lo_export|pg_logical_emit_message|pg_create_\w*replication_slot)\s*\("
    r"|\bTO\s+PROGRAM\b",
    re.IGNORECASE,
)
# Maintenance statements. A read-only run skips them: they cannot run in a transaction, or would keep a lock until its
# end. No later statement of env.py depends on them.
_MAINTENANCE = re.compile(
    rf"{_COMMENTS}(?:VACUUM\b|REINDEX\b|CLUSTER\b|(?:CREATE\s+(?:UNIQUE\s+)?|DROP\s+)INDEX\s+CONCURRENTLY\b"
    r"|ALTER\s+SYSTEM\b|ALTER\s+SUBSCRIPTION\b[^;]*\bREFRESH\b"
    r"|ALTER\s+TABLE\b[^;]*\bDETACH\s+PARTITION\b[^;]*\bCONCURRENTLY\b)",
    re.IGNORECASE | re.DOTALL,
)
_NAME = r'(?:"(?:[^"]|"")+"|\w+)'
_QUALIFIED = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_INSERTS = re.compile(rf"\b(?:INSERT\s+INTO|MERGE\s+INTO(?:\s+ONLY)?|COPY)\s+({_QUALIFIED})", re.IGNORECASE)
_USES_SEQUENCE = re.compile(r"\b(?:nextval|setval)\s*\(\s*'([^']+)'", re.IGNORECASE)
# In a transaction that is rolled back, a sequence gives its numbers back only after ALTER SEQUENCE ... RESTART.
_SEQUENCES = (
    "SELECT s.oid::regclass AS name FROM pg_class s WHERE s.relkind = 'S' AND ("
    "EXISTS (SELECT FROM unnest({counted}) AS counted WHERE to_regclass(counted) = s.oid)"
    " OR EXISTS (SELECT FROM unnest({filled}) AS filled JOIN pg_attrdef a ON a.adrelid = to_regclass(filled)"
    " JOIN pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = a.oid"
    " WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = s.oid)"
    " OR EXISTS (SELECT FROM unnest({filled}) AS filled JOIN pg_depend d ON d.refobjid = to_regclass(filled)"
    " WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass"
    " AND (d.deptype = 'a' OR d.deptype = 'i') AND d.objid = s.oid))"
)
_PROTECT = """
DO $protect$
DECLARE one record; last bigint; called boolean;
BEGIN
    FOR one IN {counting} LOOP
        EXECUTE pg_catalog.format('SELECT last_value, is_called FROM %s', one.name) INTO last, called;
        EXECUTE pg_catalog.format('ALTER SEQUENCE %s RESTART', one.name);
        PERFORM pg_catalog.setval(one.name, last, called);
    END LOOP;
END
$protect$
"""


@dataclass
class _Held:
    """A session. ``autocommit`` is True if env.py set it to commit each statement."""

    driver: Any
    held: bool = False
    autocommit: bool = False


@dataclass
class Looking:
    """The sessions of one run of env.py."""

    job: Job
    may_write: bool = False
    # True if env.py opened a READ WRITE transaction itself: its session does not show that.
    may_write_by_itself: bool = False
    _refused: bool = False
    _rendering: bool = False
    # By id() of the driver's connection. The value keeps the connection alive, so the id stays unique.
    _sessions: dict[int, _Held] = field(default_factory=dict)
    # Sessions not in use that hold what env.py has "committed", by their address, with the pool's entry of each.
    _idle: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    _addresses: dict[int, str] = field(default_factory=dict)

    def install(self) -> None:
        """Hold every session that this process opens from now on."""
        if not self.job.pooled:  # poolers refuse the startup parameter
            os.environ["PGOPTIONS"] = f"{os.environ.get('PGOPTIONS', '')} -c {_DEFAULT}=on".strip()
            _make_asyncpg_read_only()
        event.listen(sqlalchemy.engine.Engine, "engine_connect", _make_others_read_only)
        event.listen(sqlalchemy.engine.Engine, "do_connect", self._connect)
        event.listen(sqlalchemy.pool.Pool, "checkin", self._checked_in)
        event.listen(sqlalchemy.pool.Pool, "checkout", self._checked_out)
        event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", self._before, retval=True)
        event.listen(sqlalchemy.engine.Engine, "after_cursor_execute", self._after)
        event.listen(sqlalchemy.engine.Engine, "handle_error", self._failed)
        for name in ("cursor", "commit", "rollback"):
            _wrap_pooled(name, getattr(self, f"_pooled_{name}"))
        # The backend may have other drivers only.
        with suppress(ImportError):
            self._hold_psycopg2(importlib.import_module("psycopg2"), importlib.import_module("psycopg2.extensions"))
        with suppress(ImportError):
            self._hold_psycopg(importlib.import_module("psycopg"))
        with suppress(ImportError):
            self._hold_pg8000(importlib.import_module("pg8000"))

    def render(self) -> None:
        """Start to render a plan. A refused write is part of the plan's entry from now on: env.py is not run again.

        What the first run of env.py holds is given up, because it would lock out the same writes of the second one.
        """
        self._rendering = True
        for driver, used_by in self._idle.values():
            if used_by is not None:
                used_by.dbapi_connection = None
            self._sessions.pop(id(driver), None)
            driver.close()
        self._idle.clear()

    def has_refused(self, failure: Failure | None) -> bool:
        """Return whether PostgreSQL refused a write of env.py, also if env.py caught the error."""
        return self._refused or (failure is not None and failure.sqlstate == READ_ONLY)

    def _hold_psycopg2(self, psycopg2: Any, extensions: Any) -> None:  # noqa: ANN401 - modules
        looking = self

        class Connection(_held_by(looking), extensions.connection):  # type: ignore[misc, no-any-unimported]
            @property
            def autocommit(self) -> bool:
                return looking.session(self).autocommit

            @autocommit.setter
            def autocommit(self, value: bool) -> None:
                looking.set_autocommit(self, value)

            def set_isolation_level(self, level: Any) -> None:  # noqa: ANN401
                looking.set_autocommit(self, level == extensions.ISOLATION_LEVEL_AUTOCOMMIT)

            def set_session(
                self,
                *_: Any,  # noqa: ANN401
                autocommit: bool | None = None,
                readonly: Any = None,  # noqa: ANN401 - psycopg2 takes names, too
                **__: Any,  # noqa: ANN401
            ) -> None:
                looking.may_write_by_itself |= readonly is False
                if autocommit is not None:
                    looking.set_autocommit(self, autocommit)

        connect = psycopg2.connect

        def held_connect(dsn: str | None = None, connection_factory: Any = None, **options: Any) -> Any:  # noqa: ANN401
            return connect(dsn, connection_factory=connection_factory or Connection, **options)

        psycopg2.connect = held_connect

    def _hold_psycopg(self, psycopg: Any) -> None:  # noqa: ANN401 - a module
        looking = self

        class Connection(_held_by(looking), psycopg.Connection):  # type: ignore[misc, no-any-unimported]
            @classmethod
            def connect(cls, *args: Any, autocommit: bool = False, **options: Any) -> Any:  # noqa: ANN401
                connection = super().connect(*args, **options)
                looking.session(connection).autocommit = autocommit
                return connection

            def set_autocommit(self, value: bool) -> None:  # noqa: FBT001 - as in the class above
                looking.set_autocommit(self, value)

        psycopg.Connection, psycopg.connect = Connection, Connection.connect

    def _hold_pg8000(self, pg8000: Any) -> None:  # noqa: ANN401 - a module
        looking = self

        class Connection(_held_by(looking), pg8000.Connection):  # type: ignore[misc, no-any-unimported]
            # The driver itself begins transactions only without autocommit.
            autocommit = property(lambda _: False, looking.set_autocommit)

        pg8000.Connection = Connection

    def session(self, driver: Any) -> _Held:  # noqa: ANN401 - each driver has its own connection
        """Return the session of a driver's connection."""
        return self._sessions.setdefault(id(driver), _Held(driver))

    def set_autocommit(self, driver: Any, value: bool) -> None:  # noqa: ANN401, FBT001 - the value of a setter
        """Emulate the driver's autocommit. A later rollback keeps the statements that ran in autocommit mode."""
        session = self.session(driver)
        if session.autocommit and not value and session.held and not is_idle(driver):
            self.commit(driver)
        session.autocommit = value

    def hold(self, driver: Any) -> None:  # noqa: ANN401
        """Begin the session's transaction, unless one is open.

        Raises:
            PoolerRefused: the session is reached through a pooler that the function's own session does not go through.
            ConfigurationError: the session cannot be held.
        """
        session = self.session(driver)
        idle = is_idle(driver)
        if session.held and not idle:
            if session.autocommit:
                self.commit(driver)
            return
        first, session.held = not session.held, True
        if not idle and self.may_write:
            # A listener began it, and it is read-only.
            _real(driver, "commit")
        if first and not self.job.pooled:
            self._make_read_only(driver)
        timeout = qualified(f"SELECT set_config('lock_timeout', '{self.job.settings.lock_timeout_ms}ms', true)")
        read_only = qualified("SELECT set_config('transaction_read_only', 'on', true)")
        try:
            _run(driver, *((*_WRITABLE, timeout) if self.may_write else (read_only,)), _SAVEPOINT)
        except Exception as error:
            if server_error(error).sqlstate != _INSUFFICIENT_PRIVILEGE:
                raise
            raise ConfigurationError(
                f"env.py writes before Alembic reads the version table; to roll this back, {self.job.action}"
                " needs a right that its login lacks: run GRANT TEMPORARY ON DATABASE ... TO the login"
            ) from None
        if is_idle(driver):
            raise ConfigurationError(
                f"env.py makes its driver commit each statement, so {self.job.action} cannot roll its writes back"
            )

    def _make_read_only(self, driver: Any) -> None:  # noqa: ANN401
        pid = pid_at_connect(driver)
        condition = "" if pid is None else f" WHERE pg_backend_pid() = {pid}"
        done = _run(driver, qualified(f"SELECT set_config('{_DEFAULT}', 'on', false){condition}"))
        _real(driver, "commit")
        if not done:
            raise PoolerRefused(OTHER_POOLER)

    def commit(self, driver: Any) -> None:  # noqa: ANN401
        """Replace a commit by a savepoint: a later rollback keeps the changes until here."""
        if not self.session(driver).held or is_idle(driver):
            _real(driver, "commit")
            return
        try:
            _run(driver, _SAVEPOINT)
        except Exception:  # noqa: BLE001 - of any driver: a commit after an error is a rollback
            _run(driver, _TO_SAVEPOINT)

    def rollback(self, driver: Any) -> None:  # noqa: ANN401
        """Replace a rollback by ROLLBACK TO SAVEPOINT."""
        session = self.session(driver)
        if not session.held or is_idle(driver):
            _real(driver, "rollback")
        elif session.autocommit:
            self.commit(driver)
        else:
            _run(driver, _TO_SAVEPOINT)

    # SQLAlchemy: its dialects commit, roll back and set the isolation level of a driver's connection.

    def _connect(self, dialect: Any, entry: Any, place: Any, options: Any) -> Any:  # noqa: ANN401
        """Make a dialect hold its connections.

        Return a session that another engine had used for the same address, if there is one: only that session sees what
        env.py has "committed".
        """
        if dialect.name != "postgresql":
            return None
        dialect.do_commit = lambda pooled: self.commit(_driver(pooled))
        dialect.do_rollback = lambda pooled: self.rollback(_driver(pooled))
        dialect.do_close = self._close
        dialect.do_ping = self._ping
        dialect.set_isolation_level = self._set_isolation_level
        for name in ("reset_isolation_level", "set_deferrable"):
            setattr(dialect, name, lambda *_: None)
        dialect.set_readonly = self._set_readonly
        if dialect.is_async or not self.may_write:
            return None
        # psycopg gets an object of each engine's own, too.
        written = sorted(each for each in options.items() if isinstance(each[1], (str, int)))
        address = repr((dialect.driver, place, written))
        self._addresses[id(entry)] = address
        driver, used_by = self._idle.pop(address, (None, None))
        if used_by is not None:
            used_by.dbapi_connection = None
        if driver is not None:
            with suppress(Exception):  # of any driver: a lost connection
                _run(driver, _TO_SAVEPOINT, "RESET ALL", "SET SESSION AUTHORIZATION DEFAULT", _SAVEPOINT)
                self.session(driver).autocommit = False
                return driver
        return None

    def _checked_in(self, driver: Any, entry: Any) -> None:  # noqa: ANN401
        address = self._addresses.get(id(entry))
        if address is not None and driver is not None and self.session(driver).held:
            self._idle.setdefault(address, (driver, entry))

    def _checked_out(self, driver: Any, entry: Any, _: object) -> None:  # noqa: ANN401
        address = self._addresses.get(id(entry), "")
        if address in self._idle and self._idle[address][0] is driver:
            del self._idle[address]

    def _close(self, driver: Any) -> None:  # noqa: ANN401
        """Close a session, unless it is kept for another engine."""
        for address, (idle, _) in self._idle.items():
            if idle is driver:
                self._idle[address] = (driver, None)
                return
        self._sessions.pop(id(driver), None)
        driver.close()

    def _ping(self, pooled: Any) -> bool:  # noqa: ANN401
        driver = _driver(pooled)
        self.hold(driver)
        _run(driver, _NOTHING)
        return True

    def _set_isolation_level(self, pooled: Any, level: str) -> None:  # noqa: ANN401
        self.set_autocommit(_driver(pooled), level.upper().replace("_", " ") == "AUTOCOMMIT")

    def _set_readonly(self, _: object, value: bool) -> None:  # noqa: FBT001 - as SQLAlchemy calls it
        self.may_write_by_itself |= not value

    def _pooled_cursor(self, original: Callable[..., Any], pooled: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        self.hold(_driver(pooled))
        return original(pooled, *args, **options)

    def _pooled_commit(self, _: object, pooled: Any) -> None:  # noqa: ANN401
        self.commit(_driver(pooled))

    def _pooled_rollback(self, _: object, pooled: Any) -> None:  # noqa: ANN401
        self.rollback(_driver(pooled))

    def _before(self, connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> tuple[str, Any]:  # noqa: ANN401
        """Return the statement without COMMIT, ROLLBACK and the like, or a statement that does nothing in its place."""
        if connection.dialect.name != "postgresql":
            return statement, parameters
        lasting = _LASTING.search(statement)
        if lasting is not None:
            raise ConfigurationError(
                f"env.py runs {lasting[0].rstrip('( ')}, whose effect no rollback can undo, so {self.job.action}"
                " would change something"
            )
        if _MAINTENANCE.match(statement):
            others = [each for each in split(statement) if not (_MAINTENANCE.match(each) or _EMPTY.fullmatch(each))]
            if not others:
                return _NOTHING, ()
            statement = ";".join(others)
        if self.may_write:
            self._protect_sequences(connection, statement)
        self.may_write_by_itself |= _READ_WRITE.fullmatch(statement) is not None
        if may_control_transaction(statement):
            statement = ";".join(map(_without_control, split(statement)))
        return statement, parameters

    def _protect_sequences(self, connection: Any, statement: str) -> None:  # noqa: ANN401
        """Restore the sequences that this statement may advance when the transaction ends."""
        filled, counted = _INSERTS.findall(statement), _USES_SEQUENCE.findall(statement)
        if not (filled or counted):
            return
        counting = qualified(_SEQUENCES.format(filled=_array(filled), counted=_array(counted)))
        try:
            _run(_driver(connection.connection), _PROTECT.format(counting=counting))
        except Exception as error:
            if server_error(error).sqlstate != _INSUFFICIENT_PRIVILEGE:
                raise
            raise ConfigurationError(
                "env.py takes a number from a sequence that its login does not own, and no rollback returns the number,"
                f" so {self.job.action} would change the sequence: let the login own it"
            ) from None

    def _after(self, connection: Any, *_: Any) -> None:  # noqa: ANN401
        if connection.dialect.name == "postgresql":
            driver = _driver(connection.connection)
            if self.session(driver).autocommit:
                self.commit(driver)

    def _failed(self, context: Any) -> None:  # noqa: ANN401
        self._refused |= not self._rendering and server_error(context.original_exception).sqlstate == READ_ONLY
        connection = context.connection
        if connection is None or connection.dialect.name != "postgresql" or context.is_disconnect:
            return
        driver = _driver(connection.connection)
        if self.session(driver).autocommit and not is_idle(driver):
            _run(driver, _TO_SAVEPOINT)


def _held_by(looking: Looking) -> Any:  # noqa: ANN401 - a base class
    """Return a class with the methods of a driver's connection that begin or end a transaction, also in two phases."""

    class Held:
        def cursor(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
            looking.hold(self)
            return super().cursor(*args, **options)  # type: ignore[misc]

        def commit(self) -> None:
            looking.commit(self)

        def rollback(self) -> None:
            looking.rollback(self)

        def tpc_begin(self, _: object) -> None:
            looking.hold(self)

        def tpc_prepare(self) -> None:
            """Prepare nothing: the transaction is never committed."""

        def tpc_commit(self, _: object = None) -> None:
            looking.commit(self)

        def tpc_rollback(self, _: object = None) -> None:
            looking.rollback(self)

    return Held


def _make_asyncpg_read_only() -> None:
    """Make sessions of asyncpg, which ignores PGOPTIONS, read-only by default."""
    if find_spec("asyncpg") is None:
        return
    module: Any = importlib.import_module("asyncpg.connection")
    connect = module.connect

    async def read_only(*args: Any, server_settings: Any = None, **options: Any) -> Any:  # noqa: ANN401
        return await connect(*args, server_settings={_DEFAULT: "on", **(server_settings or {})}, **options)

    package: Any = importlib.import_module("asyncpg")
    module.connect = package.connect = read_only


def _wrap_pooled(name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a method of every connection that a pool of SQLAlchemy gives out."""
    for each in POOLED:
        original = getattr(each, name, None)

        def wrapped(
            pooled: Any,  # noqa: ANN401
            *args: Any,  # noqa: ANN401
            __original: Any = original,  # noqa: ANN401
            **options: Any,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            if _is_postgresql(_driver(pooled)):
                return wrapper(__original, pooled, *args, **options)
            return __original(pooled, *args, **options) if __original else getattr(_driver(pooled), name)(*args)

        setattr(each, name, wrapped)


def _make_others_read_only(connection: sqlalchemy.Connection, *_: object) -> None:
    """Make sessions read-only whose driver cannot be held, if they go through SQLAlchemy."""
    if connection.dialect.name == "postgresql" and not _is_postgresql(_driver(connection.connection)):
        row_between(
            connection,
            qualified(
                "SELECT set_config('default_transaction_read_only', 'on', false),"
                " set_config('transaction_read_only', 'on', true)"
            ),
        )


def _is_postgresql(driver: Any) -> bool:  # noqa: ANN401
    module: str = _driver_class(driver).__module__
    return module.startswith(("psycopg", "pg8000", "sqlalchemy.dialects.postgresql"))


def _driver(pooled: Any) -> Any:  # noqa: ANN401
    """Return the driver's connection of a pooled one."""
    return pooled.dbapi_connection if isinstance(pooled, POOLED) else pooled


def _real(driver: Any, name: str) -> None:  # noqa: ANN401
    getattr(_driver_class(driver), name)(driver)


def _driver_class(driver: Any) -> Any:  # noqa: ANN401
    """Return the driver's own class of a connection. The class made for psycopg2 here is derived from it."""
    return next(each for each in type(driver).__mro__ if each.__module__ != __name__)


def _run(driver: Any, *statements: str) -> list[Any]:  # noqa: ANN401
    """Execute statements past SQLAlchemy, and return the rows of the last one."""
    cursor = _driver_class(driver).cursor(driver)
    try:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
    finally:
        cursor.close()


def _without_control(statement: str) -> str:
    """Return what to run in place of a statement that begins or ends a transaction, or the statement itself."""
    return next((instead for control, instead in _CONTROL if control.fullmatch(statement)), statement)


def _array(names: list[str]) -> str:
    quoted = ("'" + name.replace("'", "''") + "'" for name in names)
    return f"ARRAY[{', '.join(quoted)}]::text[]" if names else "ARRAY[]::text[]"
