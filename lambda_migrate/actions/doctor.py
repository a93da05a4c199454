"""Tests each step of the connection to the database, in order, and always returns a report.

Use it for a function that cannot reach its database, because there is no shell where the function runs.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.credential_store import STORE
from lambda_migrate.database.migration_lock import lock_holder
from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.session import find_untrusted
from lambda_migrate.invocation.errors import PoolerRefused, UnknownRevision
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.result import Result, RunState
from lambda_migrate.invocation.wording import counted
from lambda_migrate.run.start import inspect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Invocation

_TIMEOUT_S = 5.0
# PostgreSQL's protocol, "SSLRequest": a length and a code, answered with one byte.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)

# The rights that a role needs to change a schema. Only a table's owner or a member of the owner's role can alter it. No
# revision alters the tables of an extension, such as those of PostGIS.
_PRIVILEGES = """
    SELECT has_schema_privilege(r.oid, n.oid, 'CREATE'),
           (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
               AND NOT pg_has_role(r.oid, c.relowner, 'USAGE')
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                   AND d.deptype = 'e')),
           n.nspname
    FROM pg_namespace n, pg_roles r WHERE n.nspname = %s AND r.rolname = coalesce(%s, current_user)
"""


@dataclass
class _Report:
    """The steps so far. A step that depends on a failed one is recorded as not tried."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self, name: str, check: Callable[[], str], *, possible: bool = True) -> bool:
        """Try one step and return whether it passed. ``check`` returns a message, or raises if something is wrong."""
        if not possible:
            self.steps.append(
                {"step": name, "ok": None, "duration_ms": 0, "message": "not tried: an earlier step failed"}
            )
            return False
        started = time.monotonic()
        try:
            message, passed = check(), True
        except Exception as error:  # noqa: BLE001 - the report covers every error
            message, passed = f"{type(error).__name__}: {one_line(error)}", False
        duration_ms = round((time.monotonic() - started) * 1000)
        self.steps.append({"step": name, "ok": passed, "duration_ms": duration_ms, "message": message})
        return passed

    def pass_after_all(self, name: str, message: str) -> None:
        """Let a step that failed pass, as a later one has shown."""
        step = next(step for step in self.steps if step["step"] == name)
        step.update(ok=True, message=message)


def doctor(invocation: Invocation) -> Result:
    """Return a report: ``healthy`` and ``steps``, each with its name, whether it passed, its duration and a message.

    It changes nothing and raises nothing.
    """
    report = _Report()
    found: dict[str, Any] = {}

    def keep(name: str, value: Any) -> Any:  # noqa: ANN401 - the input of the next step
        found[name] = value
        return value

    packaged = report.step("package", lambda: _package(invocation))
    known = report.step("secret", lambda: _address(keep("credentials", STORE.refresh(invocation.settings))))
    resolved = report.step("dns", lambda: _resolve(found["credentials"]), possible=known)
    reached = report.step("tcp", lambda: _reach(found["credentials"]), possible=resolved)
    secured = report.step("tls", lambda: _secure(found["credentials"]), possible=reached)
    logged_in = report.step("login", lambda: _log_in(keep("session", _session(invocation))), possible=secured)
    unpooled = report.step("pooler", lambda: _pooler(found["session"]), possible=logged_in)
    state = RunState()
    if unpooled:
        # Closed before the next step opens its own sessions: a small pool may allow two for each run.
        with closing(found["session"]) as session:
            state = RunState(session.server.database)
            writable = report.step("server", lambda: _server(session))
            permitted = report.step("privileges", lambda: _privileges(session, invocation.schema))
            report.step("search path", lambda: _search_path(session, invocation))
        if packaged and not (writable and permitted):
            with suppress(Exception):  # the next step reports the error
                _ask_env_py(report, invocation, writable=writable, permitted=permitted)
        if not packaged:
            with suppress(Exception):  # the step has reported an error
                packaged = _loads_after_env_py(report, invocation)
        report.step("version table", lambda: _version_table(invocation), possible=packaged)
        report.step("lock", lambda: _lock(invocation))
    else:
        for name in ("server", "privileges", "search path", "version table", "lock"):
            report.step(name, str, possible=False)
    extra = {"healthy": all(step["ok"] for step in report.steps), "steps": report.steps}
    return Result("doctor", invocation.settings.stage, invocation.schema, state, located=False, extra=extra)


def _package(invocation: Invocation) -> str:
    # Loaded within its step: if Alembic cannot be imported, only this step fails and not the whole report.
    return _described(load("lambda_migrate.actions.history").packaged_revisions(invocation, load_all=True))


def _described(revisions: Sequence[Mapping[str, Any]]) -> str:
    heads = [entry["revision"] for entry in revisions if entry["head"]]
    return f"{counted(len(revisions), 'revision')}, head {', '.join(sorted(heads))}"


def _address(credentials: Credentials) -> str:
    return f"{credentials.user} at {credentials.host}:{credentials.port}, database {credentials.database}"


def _resolve(credentials: Credentials) -> str:
    answers = socket.getaddrinfo(credentials.host, credentials.port, type=socket.SOCK_STREAM)
    return ", ".join(sorted({str(answer[4][0]) for answer in answers}))


def _reach(credentials: Credentials) -> str:
    with socket.create_connection((credentials.host, credentials.port), timeout=_TIMEOUT_S) as connection:
        return "connected to {}:{}".format(*connection.getpeername()[:2])


def _secure(credentials: Credentials) -> str:
    """Do the TLS handshake of PostgreSQL's clients with the checks of the sslmode in force, and return its result."""
    if credentials.sslmode == "disable":
        return "off: DB_SSLMODE is disable"
    with socket.create_connection((credentials.host, credentials.port), timeout=_TIMEOUT_S) as plain:
        plain.sendall(_SSL_REQUEST)
        if plain.recv(1) != b"S":
            raise ConnectionError("the server offers no TLS")
        context = ssl.create_default_context(cafile=str(credentials.sslrootcert))
        context.check_hostname = credentials.sslmode == "verify-full"
        if not credentials.sslmode.startswith("verify-"):
            context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname=credentials.host) as secure:
            certificate = secure.getpeercert() or {}
            until = certificate.get("notAfter", "unchecked")
            return f"{secure.version()}, {credentials.sslmode}, certificate valid until {until}"


def _session(invocation: Invocation) -> Session | PoolerRefused:
    """Return a session, or the refusal of a pooler, because the login itself worked."""
    try:
        return open_session(invocation)
    except PoolerRefused as refused:
        return refused


def _log_in(session: Session | PoolerRefused) -> str:
    if isinstance(session, PoolerRefused):
        return "the pooler accepted the login"
    return str(session.rows("SELECT current_user || ' on database ' || current_database()")[0][0])


def _pooler(session: Session | PoolerRefused) -> str:
    if isinstance(session, PoolerRefused):
        raise session
    return "in session mode" if session.pooled else "none"


def _server(session: Session) -> str:
    # The session itself is read-only in any case.
    [(read_only,)] = session.rows(
        "SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'"
    )
    if read_only:
        raise PermissionError(
            "the database is read-only by default: an upgrade fails unless env.py turns"
            " default_transaction_read_only off"
        )
    return f"PostgreSQL {session.server.version}, writable"


def _as_status(invocation: Invocation) -> Invocation:
    """Return the invocation with the request for a status of the same target."""
    return replace(invocation, request=Request(action="status", target=invocation.request.target))


def _loads_after_env_py(report: _Report, invocation: Invocation) -> bool:
    """Let the package pass if its revisions load after env.py. Some import what env.py must have imported first."""
    with closing(open_session(invocation)) as session:
        tables = load("lambda_migrate.run.attempts").version_tables
        if not tables(_as_status(invocation), session, trial="doctor"):
            return False
    found = _described(load("lambda_migrate.actions.history").packaged_revisions(invocation))
    report.pass_after_all("package", f"{found}; the revisions can be loaded only after env.py")
    return True


def _ask_env_py(report: _Report, invocation: Invocation, *, writable: bool, permitted: bool) -> None:
    """Let steps pass that failed for the login: env.py may turn the read-only default off, or act as another role."""
    with closing(open_session(invocation)) as session:
        begun = load("lambda_migrate.run.attempts").version_tables(_as_status(invocation), session)
        if not begun:
            return
        if not writable and all(began.may_write for began in begun):
            report.pass_after_all(
                "server", f"PostgreSQL {session.server.version}, read-only by default, which env.py turns off"
            )
        if not permitted:
            found = {_privileges(session, began.home, began.role): began.role for began in begun}
            roles = " and ".join(dict.fromkeys(role or "its login" for role in found.values()))
            report.pass_after_all("privileges", f"env.py acts as {roles}, which {' and '.join(found)}")


def _privileges(session: Session, schema: str | None, role: str | None = None) -> str:
    rows = session.rows(_PRIVILEGES, (schema or session.default_schema, role))
    if not rows:
        raise PermissionError("the role's search_path names no schema that exists: nothing can be created")
    may_create, foreign_tables, name = rows[0]
    if not may_create:
        raise PermissionError(f"the role may not create in schema {name}: GRANT CREATE ON SCHEMA {name} TO it")
    if foreign_tables:
        raise PermissionError(
            f"other roles own {foreign_tables} of the tables of schema {name}: the role cannot alter them; make it"
            " their owner or a member of the owner"
        )
    return f"may create in schema {name} and alter its tables"


def _search_path(session: Session, invocation: Invocation) -> str:
    found = find_untrusted(session, invocation.schema)
    if found and invocation.settings.untrusted_schema != "ignore":
        raise PermissionError(str(found))
    schemas = ", ".join(dict.fromkeys((*session.path, *filter(None, [invocation.schema])))) or "no schema"
    return f"{found}; ignored" if found else f"{schemas}: no other role may create there"


def _version_table(invocation: Invocation) -> str:
    state = inspect(_as_status(invocation))
    at = state.where().removeprefix("the database is ")
    if not state.ahead:
        return f"{at}, {len(state.pending)} pending"
    newer = f"{at}, which this package does not have"
    if not invocation.settings.newer_database_ok:
        raise UnknownRevision(f"{newer}: an upgrade fails; deploy the newer package, or set NEWER_DATABASE=ok")
    return f"{newer}; an upgrade changes nothing"


def _lock(invocation: Invocation) -> str:
    with closing(open_session(invocation)) as session:
        holder = lock_holder(session, invocation.schema)
    return f"held by {holder}" if holder else "free"
