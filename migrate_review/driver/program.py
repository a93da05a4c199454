"""Runs the backend's env.py and its revisions in the backend's own interpreter, one command at a time.

This module imports only the standard library, Alembic, SQLAlchemy, and modules of ours that do the same. Commands and
answers are lines of JSON on two pipes. The backend's output goes to a file. `process` is the other end.
"""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event

from lambda_migrate.database.credentials import Credentials
from lambda_migrate.env_py.drivers import PSYCOPG2
from lambda_migrate.env_py.inputs import set_environment
from lambda_migrate.env_py.messages import Job
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import Settings
from migrate_review.driver import drift, interrupting, listing, measuring, plain_upgrade, rendering
from migrate_review.driver.env_py import EnvPy
from migrate_review.driver.failures import EnvPyFailedError, described
from migrate_review.driver.resuming import Resuming
from migrate_review.driver.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _env_py(start: Mapping[str, Any]) -> EnvPy:
    path = Path(start["config"])
    credentials = Credentials(**{**start["credentials"], "sslrootcert": Path(start["credentials"]["sslrootcert"])})
    settings = Settings(
        stage="review",
        secret_id="",
        driver=_installed(start["driver"]),
        url_variables=tuple(start["url_variables"]),
        env_variables=start["env_variables"],
        x_arguments=start["x_arguments"],
        alembic_config=path,
    )
    job = Job(
        action="upgrade",
        revision="heads",
        settings=settings,
        credentials=credentials,
        application_name="migrate review",
        deadline=Deadline.after(start["pass_timeout_s"]),
        # If env.py runs the revisions once for each schema, the review measures them in one schema.
        schema=start.get("schema")
        or ("public" if any("{schema}" in text for text in settings.x_arguments.values()) else None),
    )
    return EnvPy(job, Path(start["folder"]), start["server"], start["pass_timeout_s"], Resuming(job))


def _installed(driver: str) -> str:
    """Return the driver, or the one that the backend has in place of psycopg2, as its package chooses it."""
    if driver != PSYCOPG2 or find_spec("psycopg2") is not None:
        return driver
    return next((f"postgresql+{name}" for name in ("psycopg", "asyncpg", "pg8000") if find_spec(name)), driver)


def _commands(env_py: EnvPy, wire: Wire) -> dict[str, Callable[..., dict[str, Any]]]:
    """Return the function of each command. The other fields of a command are its arguments."""
    return {
        "tree": partial(listing.tree, env_py),
        "render": partial(rendering.render, env_py),
        "apply": partial(measuring.apply, env_py, wire),
        "step": partial(measuring.step, env_py, wire),
        "stop": partial(interrupting.stop, env_py),
        "resume": partial(interrupting.resume, env_py),
        "drift": partial(drift.drift, env_py),
        "replay": partial(plain_upgrade.replay, env_py),
        "forget": partial(_forget, env_py),
    }


def _forget(env_py: EnvPy) -> dict[str, Any]:
    """Drop pooled connections, which are dead because the review has made its database again."""
    env_py.drop_connections()
    return {}


# The oldest versions that the review can use. The function also works with older ones.
_OLDEST = {"alembic": "1.13", "sqlalchemy": "2.0"}


def _too_old() -> str | None:
    """Return the error text for a library of the backend that is too old for the review, or None."""
    for name, oldest in _OLDEST.items():
        installed = version(name)
        if _numbers(installed) < _numbers(oldest):
            return (
                f"the backend has {name} {installed}; the review works with {oldest} and later. Raise it in the"
                " backend's requirements, or name an interpreter that has a later one with --python"
            )
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", text)[:2])


def main() -> None:
    """Execute commands until the pipe closes. The descriptors of both pipes are this program's arguments."""
    read_from, write_to = (int(argument) for argument in sys.argv[1:3])
    sys.argv[1:] = []
    with os.fdopen(read_from) as readable, os.fdopen(write_to, "w") as writable:
        wire = Wire(readable, writable)
        start = wire.read()
        if start is None:
            return
        too_old = _too_old()
        if too_old is not None:
            while wire.read() is not None:
                wire.write({"refused": too_old})
            return
        env_py = _env_py(start)
        commands = _commands(env_py, wire)
        folder = env_py.folder
        set_environment(env_py.job)
        # Relative paths in the config file and in env.py refer to the folder in which the alembic command runs.
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        event.listen(sqlalchemy.Engine, "engine_connect", lambda connection: env_py.engines.add(connection.engine))
        wire.write({"began": None})
        while (command := wire.read()) is not None:
            try:
                wire.write({"done": commands[command.pop("do")](**command)})
            except EnvPyFailedError as error:
                wire.write({"env_py": str(error)})
            except ConfigurationError as error:
                wire.write({"refused": str(error)})
            except BaseException as error:  # noqa: BLE001 - sys.exit in env.py included
                wire.write({"refused": described(error, folder)})
