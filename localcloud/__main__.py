"""`python -m localcloud up|down|clean|status|env` controls the local stage."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from localcloud import cloud
from localcloud.errors import LocalCloudError

_ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if it succeeded and, for `status`, everything runs; 1 otherwise.

    """
    parser = argparse.ArgumentParser(prog="python -m localcloud", description=__doc__)
    parser.add_argument(
        "command",
        choices=["up", "down", "clean", "status", "env"],
        help="up: start both servers; down: stop them and keep their data; clean: stop them and delete their data;"
        " status: show what runs; env: print the variables with which the aws command finds the emulator, for a"
        " shell's eval",
    )
    command = parser.parse_args(arguments).command
    try:
        return {"up": _up, "down": _down, "clean": _clean, "status": _status, "env": _env}[command]()
    except LocalCloudError as error:
        print(f"localcloud: {error}", file=sys.stderr)
        return 1


def _up() -> int:
    local = cloud.up(_ROOT)
    database = local.database
    print(f"PostgreSQL    {database.host}:{database.port}, database {database.name}, role {database.user}")
    print(f"AWS emulator  {local.emulator.endpoint}, region {local.emulator.region}")
    return 0


def _down() -> int:
    cloud.down(_ROOT)
    print("Both servers are stopped; their data is kept.")
    return 0


def _clean() -> int:
    cloud.clean(_ROOT)
    print("Both servers are stopped and their data is deleted.")
    return 0


def _status() -> int:
    running = cloud.status(_ROOT)
    for name, runs in running.items():
        print(f"{name:<13} {'running' if runs else 'stopped'}")
    return 0 if all(running.values()) else 1


def _env() -> int:
    emulator = cloud.running_emulator(_ROOT)
    if emulator is None:
        raise LocalCloudError("the AWS emulator does not run; `make migrate` starts it")
    for name, value in emulator.settings().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
