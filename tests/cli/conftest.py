"""Fixtures: the command in this process, with a stub of AWS."""

from __future__ import annotations

import functools
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from migrate_cli import actions, cli, long_run, lost_answer, run_log
from tests.support.aws_stub import Stub, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Ended:
    """A command's exit code and output."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


@pytest.fixture
def stub() -> Iterator[Stub]:
    """The AWS of one test."""
    with serve() as stub:
        yield stub


@pytest.fixture(scope="session", autouse=True)
def _the_command_is_built_once() -> Iterator[None]:
    """Build the options of all commands once in this process: building takes half of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the terminal or pipeline that runs the tests."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "MIGRATE_STAGE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits for changes that take minutes in AWS."""
    monkeypatch.setattr(actions, "_WAKING_PAUSES_S", ())
    monkeypatch.setattr(lost_answer, "READ_EVERY_S", 0.3)
    monkeypatch.setattr(run_log, "_POLL_S", 0.05)
    monkeypatch.setattr(long_run, "READ_EVERY_S", 0.1)
    monkeypatch.setattr(long_run, "LOG_PATIENCE_S", 0.5)


@pytest.fixture
def migrate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run ``migrate`` with these arguments, against the AWS that the environment names."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["migrate", *arguments])
        code = cli.main()
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def aws(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Start the stub, and name it in the environment as AWS's endpoint."""
    for name, value in stub.environment().items():
        monkeypatch.setitem(os.environ, name, value)
    return stub
