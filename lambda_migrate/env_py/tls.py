"""Makes every connection of env.py's process through SQLAlchemy at least as safe as DB_SSLMODE requires.

env.py may connect with any driver and any argument. Its TLS must not be weaker than that of the function's own session,
or a man in the middle who lets the first session pass could take the password from the second one.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect

from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import SSL_MODES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REQUIRE, _VERIFY_CA, _VERIFY_FULL = "require", "verify-ca", "verify-full"


def hold_tls(mode: str, root: Path) -> None:
    """Apply DB_SSLMODE to each connection to PostgreSQL from now on. A mode below require promises nothing.

    A connection raises ConfigurationError if env.py requests less, or if its driver is unknown and the mode verifies.
    """
    if _rank(mode) < _rank(_REQUIRE):
        return
    policy = _Policy(mode, root)

    def refuse_unknown(dialect: Any, *_: Any) -> None:  # noqa: ANN401
        # A dialect with its own connect() would not call `connect`.
        known = dialect.driver in _SECURED and type(dialect).connect is connect
        if (dialect.name == "postgresql" or dialect.driver in _SECURED) and not known and policy.verifies:
            raise ConfigurationError(
                f"env.py uses the driver {dialect.driver}, for which DB_SSLMODE={mode} cannot be enforced; use one of"
                f" {', '.join(sorted(_SECURED))}"
            )

    original = DefaultDialect.connect

    # Here, and not in a listener for do_connect: env.py's own listeners come after those for all engines.
    def connect(self: Any, *arguments: Any, **parameters: Any) -> Any:  # noqa: ANN401
        # Other dialects use these drivers, too, such as CockroachDB's.
        if self.driver in _SECURED:
            parameters = _SECURED[self.driver](policy, arguments, parameters)
        return original(self, *arguments, **parameters)

    DefaultDialect.connect = connect  # type: ignore[method-assign]
    event.listen(sqlalchemy.engine.Engine, "do_connect", refuse_unknown)
    _hold_in_drivers(policy)


def _hold_in_drivers(policy: _Policy) -> None:
    """Apply the policy to the drivers themselves, too, which a `creator` of an engine or a revision may call.

    psycopg2 has it from the start, and each other driver as soon as there is an engine for it.
    """
    held: set[str] = set()

    def hold(driver: str) -> None:
        if driver in _HOLDS and driver not in held:
            held.add(driver)
            _HOLDS[driver](policy)

    # create_engine() calls this at its end. It reads the names of its arguments in `__init__`, which must stay.
    def engine_created(_: type[DefaultDialect], engine: sqlalchemy.engine.Engine) -> None:
        hold(engine.dialect.driver)

    DefaultDialect.engine_created = classmethod(engine_created)  # type: ignore[assignment, method-assign]
    with suppress(ImportError):
        hold("psycopg2")


def _hold_in_psycopg2(policy: _Policy) -> None:
    psycopg2: Any = import_module("psycopg2")
    original = psycopg2._connect  # noqa: SLF001 - it opens each session of psycopg2.connect

    def connect(dsn: str, *arguments: Any, **parameters: Any) -> Any:  # noqa: ANN401
        secured = psycopg2.extensions.make_dsn(dsn, **_libpq(policy, (dsn,), {}))
        return original(secured, *arguments, **parameters)

    psycopg2._connect = connect  # noqa: SLF001


def _hold_in_psycopg(policy: _Policy) -> None:
    generators: Any = import_module("psycopg.generators")
    make_conninfo = import_module("psycopg.conninfo").make_conninfo
    original = generators.connect

    def connect(conninfo: str, *arguments: Any, **parameters: Any) -> Any:  # noqa: ANN401
        return original(make_conninfo(conninfo, **_libpq(policy, (conninfo,), {})), *arguments, **parameters)

    generators.connect = connect


def _hold_in_asyncpg(policy: _Policy) -> None:
    utilities: Any = import_module("asyncpg.connect_utils")
    original = utilities._connect  # noqa: SLF001 - it opens each session of asyncpg.connect and of its pools

    async def connect(**parameters: Any) -> Any:  # noqa: ANN401
        return await original(**_asyncpg(policy, (), parameters))

    utilities._connect = connect  # noqa: SLF001


def _hold_in_pg8000(policy: _Policy) -> None:
    core: Any = import_module("pg8000.core")
    connection = core.CoreConnection if hasattr(core, "CoreConnection") else core.Connection  # the latter before 1.17
    original = connection.__init__
    names = signature(original)

    def initialize(*arguments: Any, **parameters: Any) -> None:  # noqa: ANN401
        original(**_pg8000(policy, (), names.bind(*arguments, **parameters).arguments))

    connection.__init__ = initialize


_HOLDS: Mapping[str, Callable[[_Policy], None]] = {
    "psycopg2": _hold_in_psycopg2,
    "psycopg": _hold_in_psycopg,
    "asyncpg": _hold_in_asyncpg,
    "pg8000": _hold_in_pg8000,
}


@dataclass(frozen=True)
class _Policy:
    """DB_SSLMODE and DB_SSLROOTCERT."""

    mode: str
    root: Path

    @property
    def verifies(self) -> bool:
        return _rank(self.mode) >= _rank(_VERIFY_CA)

    def stricter(self, requested: str | None) -> str:
        """Return the mode for a connection that requests this mode, or none.

        Raises:
            ConfigurationError: it requests less.
        """
        if requested is None:
            return self.mode
        if _rank(requested) < _rank(self.mode):
            raise ConfigurationError(
                f"env.py asks for a connection with sslmode {requested}, and DB_SSLMODE is {self.mode}: remove it,"
                " or ask for more; PGSSLMODE and PGSSLROOTCERT have the right values"
            )
        return requested

    def check_root(self, requested: str | None) -> None:
        """Check the root certificates that a connection requests, or that env.py has put into PGSSLROOTCERT.

        Raises:
            ConfigurationError: one of them is not among those of DB_SSLROOTCERT. It could be anybody's.
        """
        requested = requested or os.environ.get("PGSSLROOTCERT") or str(self.root)
        if (
            self.verifies
            and requested != str(self.root)
            and not _certificates(requested) <= _certificates(str(self.root))
        ):
            raise ConfigurationError(
                f"env.py asks for the root certificates in {requested}, and the server is verified by those of"
                f" {self.root} (certificate verify failed): remove them, or add them to the"
                " stage's `database.ca_bundle` (DB_SSLROOTCERT)"
            )

    def context(self, requested: str | None) -> ssl.SSLContext:
        """Return a context of Python's for a connection, or raise as `stricter`.

        Raises:
            ConfigurationError: there is no such mode. The driver cannot refuse it, because it gets the context instead.
        """
        mode = self.stricter(requested)
        if mode not in SSL_MODES:
            raise ConfigurationError(
                f"env.py asks for a connection with sslmode {mode}, which does not exist, and DB_SSLMODE is"
                f" {self.mode}: use one of {', '.join(SSL_MODES)}"
            )
        self.check_root(None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = mode == _VERIFY_FULL
        if _rank(mode) >= _rank(_VERIFY_CA):
            context.load_verify_locations(self.root)
        else:
            context.verify_mode = ssl.CERT_NONE
        return context


@lru_cache(maxsize=4)
def _certificates(path: str) -> frozenset[str]:
    """Return the certificates in a file, or the path alone if there are none, as for ``system``."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.DOTALL)
    return frozenset("".join(each.split()) for each in found) or frozenset({path})


def _rank(mode: str) -> int:
    # The driver itself refuses a mode that does not exist.
    return SSL_MODES.index(mode) if mode in SSL_MODES else len(SSL_MODES)


def _libpq(policy: _Policy, arguments: tuple[Any, ...], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a connection through libpq. Separate parameters override a connection string."""
    text = next((str(each) for each in (*arguments[:1], parameters.get("dsn"), parameters.get("conninfo")) if each), "")
    parsed = _parsed(text) if text else {}
    mode = policy.stricter(parameters.get("sslmode", parsed.get("sslmode")))
    policy.check_root(parameters.get("sslrootcert", parsed.get("sslrootcert")))
    # Encryption by Kerberos would take the place of TLS.
    secured = {"sslmode": mode, "gssencmode": "disable"}
    return {**parameters, **secured, **({"sslrootcert": str(policy.root)} if policy.verifies else {})}


def _parsed(text: str) -> Mapping[str, Any]:
    """Return the parameters in a connection string, as the driver that is loaded reads it."""
    if "psycopg" in sys.modules:
        found: Mapping[str, Any] = import_module("psycopg.conninfo").conninfo_to_dict(text)
    else:
        found = import_module("psycopg2.extensions").parse_dsn(text)
    return found


def _asyncpg(policy: _Policy, arguments: tuple[Any, ...], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of asyncpg. ``ssl`` is a mode, a context, True or False, and wins over the address."""
    given = parameters.get("ssl")
    address = parameters.get("dsn") or next(iter(arguments), None)
    if given is None and address:
        given = sqlalchemy.engine.make_url(str(address)).query.get("sslmode")
    if given is True:
        given = _VERIFY_FULL
    if str(parameters.get("host") or "").startswith("/"):
        return {**parameters}  # a Unix socket, for which asyncpg has no TLS
    return {**parameters, "ssl": policy.context(_mode_of(given))}


def _pg8000(policy: _Policy, _: tuple[Any, ...], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of pg8000. ``ssl_context`` may be True, which verifies nothing."""
    given = parameters.get("ssl_context")
    return {**parameters, "ssl_context": policy.context(_mode_of(_REQUIRE if given is True else given))}


def _mode_of(given: Any) -> str | None:  # noqa: ANN401 - any value of env.py
    """Return the mode that a driver's argument means, None if it leaves the mode open."""
    if given is False:
        return "disable"
    if isinstance(given, ssl.SSLContext):
        if given.verify_mode is not ssl.CERT_REQUIRED:
            return _REQUIRE
        return _VERIFY_FULL if given.check_hostname else _VERIFY_CA
    return None if given is None else str(getattr(given, "name", given)).replace("_", "-")


_SECURED: Mapping[str, Callable[[_Policy, tuple[Any, ...], Mapping[str, Any]], dict[str, Any]]] = {
    "psycopg2": _libpq,
    "psycopg": _libpq,
    "asyncpg": _asyncpg,
    "pg8000": _pg8000,
}
