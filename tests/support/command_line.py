"""The command `migrate` as a process, and log lines of two runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, BinaryIO

from tests.support.aws_stub import Stub, line
from tests.support.checkout import ROOT
from tests.support.processes import interruptible, killing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


COMMAND = [sys.executable, "-m", "migrate_cli"]


def environment(stub: Stub) -> dict[str, str]:
    return {**os.environ, **stub.environment(), "TERM": "xterm-256color", "COLUMNS": "60"}


def started(
    stub: Stub,
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int | BinaryIO = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Start the command, which SIGINT interrupts, and kill it at the end of the context."""
    command = [*COMMAND, *arguments]
    with interruptible():
        return killing(
            subprocess.Popen(command, cwd=ROOT, env=environment(stub), stdin=stdin, stdout=stdout, stderr=stderr)
        )


def finished(
    stub: Stub, *arguments: str, stdout: int | BinaryIO = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """Return the command that has ended, with its output."""
    with started(stub, *arguments, stdout=stdout) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


STORY = [
    line("migration.started", "upgrade to head", request_id="of-another", action="status"),
    line("migration.started", "upgrade to head"),
    line("revision.started", "running", revision="bbbb", description="[b]Add users", step=1, steps=2),
    line("revision.applied", "committed", revision="bbbb", description="[b]Add users", duration_ms=1400),
    line("revision.applied", "committed", revision="zzzz", request_id="of-another", duration_ms=1),
    line("revision.started", "running", revision="cccc", description="Backfill"),
]
FAILED_STORY = [
    line("migration.started", "upgrade to head"),
    line("revision.started", "running", revision="bbbb", description="Add users"),
    line("revision.applied", "committed", revision="bbbb", description="Add users", duration_ms=1400),
    line("revision.started", "running", revision="cccc", description="Unique e-mails"),
    line(
        "migration.failed",
        "revision cccc failed",
        error_type="MigrationFailed",
        revision="cccc",
        applied=["bbbb"],
        pending=["cccc", "dddd", "eeee"],
        file="migrations/versions/cccc.py",
        line=17,
        statement="CREATE UNIQUE INDEX mails ON users (mail)",
        sqlstate="23505",
        detail="Key (mail)=(a@b.c) is duplicated.",
        hint="Look.",
    ),
]
