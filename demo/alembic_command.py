"""Runs an alembic command with the address in the variable DATABASE_URL, also for a stock env.py.

It runs in the backend's folder with the backend's libraries on the path. Until the command has failed, it uses only the
standard library and Alembic.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from alembic.config import CommandLine, Config

_EXAMPLE = re.compile(r"^\.?env.*(example|sample|template|dist)|(example|sample|template).*\.env", re.IGNORECASE)


def main(arguments: list[str]) -> None:
    """Run the command. Like the function, replace ``sqlalchemy.url`` if the configuration has it."""
    command = CommandLine(prog="alembic")
    options = command.parser.parse_args(arguments)
    # An older Alembic does not support pyproject.toml.
    files: dict[str, Any] = {"toml_file": "pyproject.toml"} if hasattr(Config, "toml_file_name") else {}
    # Newer releases of Alembic accept several.
    named = options.config[-1] if isinstance(options.config, list) else options.config
    ini = None if named.endswith(".toml") else named
    config = Config(ini if ini and Path(ini).exists() else None, cmd_opts=options, **files)
    if config.file_config.has_option(config.config_ini_section, "sqlalchemy.url"):
        theirs = config.file_config.get(config.config_ini_section, "sqlalchemy.url", raw=True)
        driver = re.match(r"postgresql\+\w+(?=://)", theirs)
        url = os.environ["DATABASE_URL"]
        address = re.sub(r"^[^:]+", driver[0], url) if driver else url
        config.set_main_option("sqlalchemy.url", address.replace("%", "%%"))
    try:
        command.run_cmd(config, options)
    except Exception as error:
        names = _missing_variables(error)
        if not names:
            raise
        sys.exit(f"error: the backend needs {', '.join(names)} in its environment; {_where_to_write_them()}")


def _missing_variables(error: Exception) -> list[str]:
    """Return the missing variables that caused the error."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, KeyError) and frames[-1].filename not in {os.__file__, "<frozen os>"}:
        return []  # the key of another mapping
    # Last on the path, and only now: the backend may have modules of the same names as this checkout.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    from lambda_migrate.env_py.advice import missing_variables  # noqa: PLC0415

    return [name for name in missing_variables(error) if name.isupper() and name not in os.environ]


def _where_to_write_them() -> str:
    """Return how the backend gets variables, with an example of its own if it has one."""
    file = Path.cwd() / ".env"
    examples = sorted(each for each in Path.cwd().glob("*env*") if each.is_file() and _EXAMPLE.search(each.name))
    if file.is_file():
        return f"name a file that has them: ENV={file}"
    like = f" like {examples[0].name}" if examples else ""
    return f"write a file{like} that has them and name it: ENV={file}"


if __name__ == "__main__":
    main(sys.argv[1:])
