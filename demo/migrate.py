"""The main job on this machine, end to end: deploy stage local, then migrate.

Run as ``python -m demo.migrate`` (`make migrate`). Only Lambda and AWS are emulated. The CDK's CLI, the aws CLI, and
PostgreSQL with TLS and a password are real.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.text import Text

from demo import backend
from demo.backend import ROOT, Backend, BackendError
from infra.package.errors import PackageError
from localcloud import cloud
from localcloud.clients import client
from localcloud.errors import LocalCloudError
from migrate_cli import presentation, stages

if TYPE_CHECKING:
    from localcloud.postgres import Database

STAGE = stages.LOCAL
_PROJECT = stages.project()
_SETTINGS = _PROJECT.stage(STAGE)
FUNCTION = _PROJECT.names(STAGE).function
SECRET = str(_SETTINGS.database.secret)
# From cdk.json: the authority that signed the server's certificate.
CA_BUNDLE = ROOT / str(_SETTINGS.database.ca_bundle)
ACCOUNT = "000000000000"
# The seconds between two lines of a long step.
_TICK_S = 5


def main() -> int:
    """Run the steps in order.

    Returns:
        The exit code: 0 if the database is at head, 1 after any failure.
    """
    parser = argparse.ArgumentParser(prog="python -m demo.migrate", description=__doc__)
    backend.add_arguments(parser)
    options = parser.parse_args()
    # Results go to standard output, progress and errors to standard error.
    results, progress = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        one = backend.chosen(options)
        with step(progress, "Starting PostgreSQL and AWS on this machine"):
            running = cloud.up(ROOT, one.database)
            CA_BUNDLE.write_bytes(running.database.ca.read_bytes())
        environment = running.emulator.environment(os.environ)
        with step(progress, f"Storing the credentials in the secret {SECRET}"):
            store_secret(running, SECRET, running.database)
        with step(progress, "Deploying the function with the CDK"):
            deploy(running, environment, one)
        with step(progress, f"aws lambda invoke --function-name {FUNCTION}"):
            answer, failed = _invoke(environment)
    except (LocalCloudError, DemoError, BackendError, PackageError) as error:
        progress.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return 1
    if failed:
        presentation.show_error(answer, progress)
        progress.print("The log of the run: .venv/bin/migrate logs --stage local", soft_wrap=True)
        if not one.is_ours and "DATABASE_ENV" in answer.get("errorMessage", ""):
            file = options.env or one.folder / ".env"
            progress.print(f"Variables of the backend may be in a file: ENV={file}", soft_wrap=True)
        return 1
    results.print()
    presentation.show_result(answer, results)
    return 0


class DemoError(Exception):
    """A command of the CDK or of the aws CLI failed. The message is its own."""


class step:  # noqa: N801 - reads as a statement
    """Show a step's name, and its duration at the end."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what

    def __enter__(self) -> None:
        self._console.print(f"[dim]{self._what} ...[/]")
        self._started = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_S):
            self._console.print(f"[dim]  running for {time.monotonic() - self._started:.0f} s[/]")

    def __exit__(self, kind: object, *_: object) -> None:
        self._ended.set()
        if kind is None:
            self._console.print(f"[dim]  done in {time.monotonic() - self._started:.1f} s[/]")


def store_secret(running: cloud.Cloud, name: str, database: Database) -> None:
    """Store the database's credentials in the secret of that name."""
    manager = client(running.emulator, "secretsmanager")
    value = json.dumps(database.secret)
    try:
        manager.put_secret_value(SecretId=name, SecretString=value)
    except manager.exceptions.ResourceNotFoundException:
        manager.create_secret(Name=name, SecretString=value)


def deploy(running: cloud.Cloud, environment: dict[str, str], one: Backend | None = None) -> None:
    """Deploy stage local with the CDK's own command, with another backend if there is one.

    Raises:
        DemoError: the deployment failed.
        PackageError: the other backend cannot be packaged.
    """
    formation = client(running.emulator, "cloudformation")
    try:
        formation.describe_stacks(StackName="CDKToolkit")
    except ClientError:
        _run(["cdk", "bootstrap", f"aws://{ACCOUNT}/{running.emulator.region}", "--app", ""], environment)
    command = ["cdk", "deploy", "--context", f"stage={STAGE}", "--require-approval", "never"]
    with tempfile.TemporaryDirectory() as scratch:
        if one is not None and not (one.is_ours and not one.environment):
            # In a file, because other users can see a command's arguments.
            variables = one.with_database_env({} if one.is_ours else one.package("another").database_env)
            file = Path(scratch, "environment.json")
            file.touch(mode=0o600)
            file.write_text(json.dumps(variables), encoding="utf-8")
            command += ["--context", f"backend={one.folder}", "--context", f"environment={file}"]
        _run([*command, "--output", ".local/cdk.out"], environment)


def _invoke(environment: dict[str, str]) -> tuple[dict[str, Any], bool]:
    """Return the function's answer, and whether it is an error. The aws command exits with 0 for both."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        # The aws command's default read timeout is 60 s. After it, the command would invoke again.
        command = ["aws", "lambda", "invoke", "--function-name", FUNCTION, "--cli-read-timeout", "910", str(out)]
        invocation = json.loads(_run(command, environment))
        return json.loads(out.read_text()), "FunctionError" in invocation


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise DemoError("\n".join([f"{' '.join(command[:2])} failed:", *lines[-25:]]))
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
