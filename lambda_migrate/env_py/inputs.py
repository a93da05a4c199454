"""Every way in which an env.py may learn its address: the contract's section 3 promises all of them at once."""

from __future__ import annotations

import contextlib
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy
from alembic.config import CommandLine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from alembic.config import Config

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.env_py.messages import Job

_CONNECT_TIMEOUT_S = 10


def set_environment(job: Job) -> None:
    """Everything by which an env.py may learn its address and TLS settings."""
    credentials, settings = job.credentials, job.settings
    placeholders = credentials.placeholders(settings.driver)
    os.environ.update(dict.fromkeys(settings.url_variables, credentials.url(settings.driver)))
    os.environ.update({name: _filled(text, placeholders) for name, text in settings.env_variables.items()})
    # Poolers refuse the startup parameter `options`; `connection` sets the path in each session then.
    if job.schema is not None and not job.pooled:
        # For connections that the backend makes beside env.py's; a backslash escapes what libpq would split.
        path = re.sub(r"([\\ ])", r"\\\1", '"' + job.schema.replace('"', '""') + '"')
        os.environ["PGOPTIONS"] = f"-c search_path={path}"
    # libpq's own variables, which asyncpg reads too, so that TLS holds for every driver.
    os.environ.update(
        PGSSLMODE=credentials.sslmode,
        PGSSLROOTCERT=str(credentials.sslrootcert),
        PGCONNECT_TIMEOUT=str(_CONNECT_TIMEOUT_S),
        PGAPPNAME=job.application_name,
    )


def _filled(text: str, placeholders: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: placeholders[found[1]], text)


def set_config(config: Config, job: Job) -> None:
    """Everything that an env.py may read in its ``config``."""
    _set_url(config, job.credentials, job.settings.driver)
    _accept_percent_signs(config)
    config.attributes = _Attributes(lambda: _own_engine(job.credentials, job.settings.driver))
    # For a revision that works in steps: at 0 it raises TimeoutError, and the run is incomplete, not failed.
    config.attributes["time_left"] = job.deadline.left
    config.cmd_opts = command_line(job)


def _set_url(config: Config, credentials: Credentials, driver: str) -> None:
    """Set sqlalchemy.url only where the config file has it: elsewhere an env.py may prefer it to its own variable."""
    section, key = config.config_ini_section, "sqlalchemy.url"
    if not config.file_config.has_option(section, key):
        return
    own_driver = re.match(r"postgresql\+\w+(?=://)", config.file_config.get(section, key, raw=True))
    address = credentials.url(own_driver[0] if own_driver else driver)
    config.set_main_option(key, address.replace("%", "%%"))


def _accept_percent_signs(config: Config) -> None:
    """Let an env.py set sqlalchemy.url itself, though it forgets that a percent sign has a meaning in a config file.

    It works with a password without one, so nobody notices until a generated password holds a character that must be
    escaped in a URL.
    """
    original = config.set_section_option

    def set_section_option(section: str, name: str, value: str) -> None:
        try:
            original(section, name, value)
        except ValueError:
            original(section, name, value.replace("%", "%%"))

    config.set_section_option = set_section_option  # type: ignore[method-assign]


def command_line(job: Job, *options: str) -> argparse.Namespace:
    """What env.py finds in ``config.cmd_opts`` when the alembic command runs it."""
    arguments = {"upgrade": [job.revision], "plan": [job.revision], "downgrade": ["base"], "stamp": [job.revision]}
    command = {"plan": "upgrade", "status": "current", "doctor": "history"}.get(job.action, job.action)
    found = command_line_parser().parse_args(
        ["-c", job.settings.alembic_config.name, command, *arguments.get(job.action, ()), *options]
    )
    found.revision = job.revision
    # Asked for by the recipe of Alembic's cookbook, which its own `check` command fails on.
    found.autogenerate = job.action == "check"
    return found


@lru_cache(maxsize=1)
def command_line_parser() -> argparse.ArgumentParser:
    """The alembic command's. It takes longer to make than a revision to run, so it is made once in a sandbox."""
    return CommandLine().parser


class _Attributes(dict[str, Any]):
    """`Config.attributes` that makes a connection only for an env.py that asks for one."""

    def __init__(self, make_engine: Callable[[], sqlalchemy.Engine]) -> None:
        super().__init__()
        self._make_engine = make_engine

    def __missing__(self, key: str) -> Any:  # noqa: ANN401
        if key != "connection":
            raise KeyError(key)
        connection = self._make_engine().connect()
        # Some expect an engine here, as pytest-alembic hands over, and connect.
        connection.connect = lambda: contextlib.nullcontext(connection)  # type: ignore[attr-defined]
        self[key] = connection
        return connection

    def __contains__(self, key: object) -> bool:
        return key == "connection" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        return self[key] if key in self else default  # noqa: SIM401 - that would call this method

    def pop(self, key: str, *default: Any) -> Any:  # noqa: ANN401
        if key in self:
            self[key]  # made, if it was not
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        return self[key] if key in self else super().setdefault(key, default)


def _own_engine(credentials: Credentials, driver: str) -> sqlalchemy.Engine:
    # A connection that is handed over is used without asyncio.
    url = sqlalchemy.make_url(credentials.url(driver))
    if url.get_dialect().is_async:
        url = url.set(drivername="postgresql+psycopg2")
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
