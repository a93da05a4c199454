"""Runs a packaged tree up to its first use of a database, in its own process, and prints its imports.

Arguments: the package, and the paths in it of Alembic's configuration and of the folder where alembic is run. Prints a
JSON object: ``files`` are the imported paths, relative to the package, ``metadata`` the distributions whose metadata
were read, and ``error`` is the reason why the trace is incomplete, or null.
"""

import importlib
import json
import os
import sys
from contextlib import redirect_stdout, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

# An address without a server, for an env.py that connects before it configures Alembic.
_VARIABLES = {
    "STAGE": "trace",
    "DB_SECRET_ID": "trace",
    "PGCONNECT_TIMEOUT": "2",
}
# Modules that only a connection imports.
_DRIVERS = ("psycopg2", "psycopg", "asyncpg", "pg8000", "greenlet")


class _Reached(BaseException):
    """env.py has reached the configuration of Alembic, so its imports are complete."""


def run(package: Path, config_file: Path, folder: Path) -> None:
    """Run env.py, and import every revision."""
    os.environ.update({name: value for name, value in _VARIABLES.items() if name not in os.environ})
    sys.path.insert(0, str(package))
    import lambda_migrate  # noqa: PLC0415 - out of the package

    # As in the process of env.py.
    sys.path[:] = [each for each in sys.path if each not in {str(package), str(lambda_migrate.LIBRARIES)}]
    sys.path[:0] = [str(config_file.parent), str(folder), str(lambda_migrate.BACKEND_LIBRARIES)]
    sys.path.append(str(lambda_migrate.LAMBDAS_LIBRARIES))
    os.chdir(folder)
    from lambda_migrate.database.credentials import Credentials  # noqa: PLC0415
    from lambda_migrate.env_py import tree  # noqa: PLC0415
    from lambda_migrate.env_py.flask_app import in_app  # noqa: PLC0415
    from lambda_migrate.env_py.inputs import set_config, set_environment  # noqa: PLC0415
    from lambda_migrate.env_py.messages import Job  # noqa: PLC0415
    from lambda_migrate.invocation.deadline import Deadline  # noqa: PLC0415
    from lambda_migrate.invocation.settings import read_settings  # noqa: PLC0415

    nowhere = Credentials("127.0.0.1", 1, "trace", "trace", "trace", "disable", Path(os.devnull))
    settings = read_settings({**os.environ, "ALEMBIC_CONFIG": config_file.name}, package_root=package)
    job = Job(
        action="upgrade",
        revision="heads",
        settings=settings,
        credentials=nowhere,
        application_name="trace",
        deadline=Deadline.after(60),
    )
    set_environment(job)
    config = tree.read_config(config_file)
    set_config(config, job)
    for driver in _DRIVERS:
        with suppress(ImportError):
            importlib.import_module(driver)
    with in_app(tree.env_py(config), os.environ.get("FLASK_APP")) as complete:
        _run(complete(config))


def _run(config: Any) -> None:  # noqa: ANN401 - Alembic's, out of the package
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    script = ScriptDirectory.from_config(config)
    context = EnvironmentContext(config, script, fn=lambda *_: [], as_sql=True, destination_rev="heads")

    def configure(*_: Any, **__: Any) -> None:  # noqa: ANN401
        raise _Reached

    context.configure = configure  # type: ignore[method-assign]
    with context:
        try:
            script.run_env()
        except _Reached:
            pass
        except BaseException as error:
            if not _is_of_a_connection(error):
                raise
        # Alembic loads the revisions after env.py, and they may need what env.py has imported.
        for revision in script.walk_revisions():
            _ = revision.module


def _is_of_a_connection(error: BaseException) -> bool:
    """Return whether the code failed to connect to the database, so it has imported its modules."""
    names = {each.__name__ for each in type(error).__mro__}
    return bool(names & {"OperationalError", "InterfaceError", "ConnectionRefusedError"})


def main() -> None:
    """Trace, and print the result after any error."""
    package = Path(sys.argv[1])
    read: set[str] = set()
    from_name = metadata.Distribution.from_name

    def noted(name: str) -> metadata.Distribution:
        read.add(name)
        return from_name(name)

    metadata.Distribution.from_name = noted  # type: ignore[method-assign]
    error = None
    with redirect_stdout(sys.stderr):
        try:
            run(package, package / sys.argv[2], package / sys.argv[3])
        except BaseException as raised:  # noqa: BLE001 - sys.exit in env.py included
            if not _is_of_a_connection(raised):
                error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
    files = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    imported = sorted(os.path.relpath(file, package) for file in files if file and Path(file).is_relative_to(package))
    print(json.dumps({"files": imported, "metadata": sorted(read), "error": error}))
    sys.stdout.flush()
    os._exit(0)  # ends all threads of the backend


if __name__ == "__main__":
    main()
