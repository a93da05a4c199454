"""Runs an alembic command with the address in the variable DATABASE_URL, also for a stock env.py.

It runs in the backend's folder with the backend's libraries on the path, so it uses only the standard library and
Alembic.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from alembic.config import CommandLine, Config


def main(arguments: list[str]) -> None:
    """Run the command. Like the function, replace ``sqlalchemy.url`` if the configuration has it."""
    command = CommandLine(prog="alembic")
    options = command.parser.parse_args(arguments)
    # An older Alembic does not support pyproject.toml.
    files: dict[str, Any] = {"toml_file": "pyproject.toml"} if hasattr(Config, "toml_file_name") else {}
    # Newer releases of Alembic accept several.
    named = options.config[-1] if isinstance(options.config, list) else options.config
    ini = None if named.endswith(".toml") else named
    config = Config(ini if ini and os.path.exists(ini) else None, cmd_opts=options, **files)  # noqa: PTH110
    if config.file_config.has_option(config.config_ini_section, "sqlalchemy.url"):
        theirs = config.file_config.get(config.config_ini_section, "sqlalchemy.url", raw=True)
        driver = re.match(r"postgresql\+\w+(?=://)", theirs)
        url = os.environ["DATABASE_URL"]
        address = re.sub(r"^[^:]+", driver[0], url) if driver else url
        config.set_main_option("sqlalchemy.url", address.replace("%", "%%"))
    command.run_cmd(config, options)


if __name__ == "__main__":
    main(sys.argv[1:])
