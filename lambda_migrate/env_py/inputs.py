"""Sets every source from which an env.py may read its address.

The list is docs/contract.md#how-envpy-gets-its-address.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import alembic.command
import sqlalchemy
from alembic.config import CommandLine

from lambda_migrate.env_py.drivers import PSYCOPG2, provide
from lambda_migrate.env_py.transactions import OF_THE_CALLER
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import SCHEMA_PLACEHOLDER

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from alembic.config import Config

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.env_py.messages import Job

_CONNECT_TIMEOUT_S = 10


def set_environment(job: Job) -> None:
    """Set the environment variables from which an env.py may read its address and TLS settings."""
    credentials, settings = job.credentials, job.settings
    provide(settings.driver)
    placeholders = credentials.placeholders(settings.driver)
    os.environ.update(dict.fromkeys(settings.url_variables, credentials.url(settings.driver)))
    os.environ.update({name: _filled(text, placeholders) for name, text in settings.env_variables.items()})
    # Poolers refuse the startup parameter `options`. Then `connection` sets the path in each session.
    if job.schema is not None and not job.pooled:
        # For further connections of the backend. A backslash keeps libpq from splitting at a space.
        path = re.sub(r"([\\ ])", r"\\\1", '"' + job.schema.replace('"', '""') + '"')
        os.environ["PGOPTIONS"] = f"-c search_path={path}"
    # libpq's own variables. psycopg uses libpq and asyncpg reads them too, so TLS applies with each of these drivers.
    os.environ.update(
        PGSSLMODE=credentials.sslmode,
        PGSSLROOTCERT=str(credentials.sslrootcert),
        PGCONNECT_TIMEOUT=str(_CONNECT_TIMEOUT_S),
        PGAPPNAME=job.application_name,
    )


def _filled(text: str, placeholders: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: placeholders[found[1]], text)


def set_config(config: Config, job: Job) -> None:
    """Set everything that an env.py may read in its ``config``."""
    _set_url(config, job.credentials, job.settings.driver)
    _accept_percent_signs(config)
    config.attributes = _Attributes(lambda: _own_engine(job.credentials, job.settings.driver))
    # A revision that works in steps raises TimeoutError when this returns 0. The run is then incomplete, not failed.
    config.attributes["time_left"] = job.deadline.left
    set_command_line(config, job)


def _set_url(config: Config, credentials: Credentials, driver: str) -> None:
    """Set sqlalchemy.url only if the config file has it. Otherwise env.py may prefer it to its own variable."""
    section, key = config.config_ini_section, "sqlalchemy.url"
    if not config.file_config.has_option(section, key):
        return
    own_driver = re.match(r"postgresql\+\w+(?=://)", config.file_config.get(section, key, raw=True))
    used_driver = own_driver[0] if own_driver else driver
    provide(used_driver)
    address = credentials.url(used_driver)
    config.set_main_option(key, address.replace("%", "%%"))


def _accept_percent_signs(config: Config) -> None:
    """Let env.py set sqlalchemy.url without doubling percent signs, which have a meaning in a config file.

    Such an env.py works until a generated password holds a character that must be escaped in a URL.
    """
    original = config.set_section_option

    def set_section_option(section: str, name: str, value: str) -> None:
        try:
            original(section, name, value)
        except ValueError:
            original(section, name, value.replace("%", "%%"))

    config.set_section_option = set_section_option  # type: ignore[method-assign]


def set_command_line(config: Config, job: Job, *options: str) -> None:
    """Set ``config.cmd_opts`` and ``sys.argv`` to what env.py gets when the alembic command runs it."""
    arguments = {"upgrade": [job.revision], "plan": [job.revision], "downgrade": ["base"], "stamp": [job.revision]}
    # Alembic has `check` since 1.9.
    check = "check" if hasattr(alembic.command, "check") else "revision"
    command = {"plan": "upgrade", "status": "current", "doctor": "history", "check": check}.get(job.action, job.action)
    words = ["-c", job.settings.alembic_config.name, command, *arguments.get(job.action, ()), *options]
    found = command_line_parser().parse_args(words)
    found.revision = job.revision
    found.x = _x_arguments(job)
    # A recipe of Alembic's cookbook reads this, and fails under Alembic's own `check` command, which does not set it.
    found.autogenerate = job.action == "check"
    config.cmd_opts = found
    sys.argv[1:] = words


def _x_arguments(job: Job) -> list[str] | None:
    """Return the values of ``-x`` that the alembic command would get.

    Raises:
        ConfigurationError: ALEMBIC_X needs a schema, and the request names none.
    """
    placeholders = job.credentials.placeholders(job.settings.driver)
    if job.schema is not None:
        placeholders[SCHEMA_PLACEHOLDER] = job.schema
    elif any(f"{{{SCHEMA_PLACEHOLDER}}}" in text for text in job.settings.x_arguments.values()):
        if job.server is not None:
            raise ConfigurationError("ALEMBIC_X has the placeholder {schema}, so the event must have target.schema")
        placeholders[SCHEMA_PLACEHOLDER] = ""  # only the tree is loaded
    return [f"{name}={_filled(text, placeholders)}" for name, text in job.settings.x_arguments.items()] or None


@lru_cache(maxsize=1)
def command_line_parser() -> argparse.ArgumentParser:
    """Return the alembic command's parser. Creating it takes longer than a revision, so it is created once."""
    return CommandLine().parser


class _Attributes(dict[str, Any]):
    """`Config.attributes` that connects only if env.py reads "connection"."""

    def __init__(self, make_engine: Callable[[], sqlalchemy.Engine]) -> None:
        super().__init__()
        self._make_engine = make_engine

    def __missing__(self, key: str) -> Any:  # noqa: ANN401
        if key != "connection":
            raise KeyError(key)
        connection = self._make_engine().connect().execution_options(**{OF_THE_CALLER: True})
        # Some env.py files expect an engine here, as pytest-alembic passes one, and call its connect().
        connection.connect = lambda: contextlib.nullcontext(connection)  # type: ignore[attr-defined]
        self[key] = connection
        return connection

    def __contains__(self, key: object) -> bool:
        return key == "connection" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        return self[key] if key in self else default  # noqa: SIM401 - that would call this method

    def pop(self, key: str, *default: Any) -> Any:  # noqa: ANN401
        if key in self:
            self[key]  # connects, if it has not yet
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        return self[key] if key in self else super().setdefault(key, default)


def _own_engine(credentials: Credentials, driver: str) -> sqlalchemy.Engine:
    # An env.py uses a connection from `attributes` without asyncio.
    url = sqlalchemy.engine.make_url(credentials.url(driver))
    if url.get_dialect().is_async:
        provide(PSYCOPG2)
        url = url.set(drivername=PSYCOPG2)
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
