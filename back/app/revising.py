"""Prints one line with the problem and the next step if the alembic command is used wrongly.

`alembic/env.py` uses it. Other programs that run that file (the start of the server, a migration
runner) distinguish errors by type, so an error keeps its type. Only the command's output changes.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, OperationalError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from alembic.config import Config
    from alembic.operations import MigrationScript
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext

BACK = Path(__file__).resolve().parents[1]
VERSIONS = BACK / "alembic" / "versions"

# Words without information about the change.
_EMPTY_WORDS = frozenset(
    "a alembic and auto autogenerate change changes database db fix foo bar migrate migration"
    " migrations misc model models my new of please revision schema some stuff sync temp test"
    " testing the thing things tmp todo update updated updates wip work".split()
)


def check_description(config: Config) -> None:
    """Refuse `alembic revision` without a description of the change.

    It becomes the file's name, and is in every log of the migration for years.
    """
    if not _is_revision(config):
        return
    description = config.cmd_opts.message or ""
    words = re.findall(r"[^\W_]+", description.lower())
    if len(words) < 2 or _EMPTY_WORDS.issuperset(words):
        what = f"{description!r} does not tell what changes" if words else "there is no description"
        raise CommandError(f'{what}; say it in a few words, as in "Add notifications table"')


def check_folder_is_writable(config: Config) -> None:
    """Refuse `alembic revision` where it cannot write the file: a mounted tree may be another's."""
    if _is_revision(config) and not os.access(VERSIONS, os.W_OK):
        owner = VERSIONS.stat()
        raise CommandError(
            f"user {os.getuid()} cannot write into {VERSIONS}; put UID={owner.st_uid} and"
            f" GID={owner.st_gid}, its owner, into .env, then: docker compose up -d"
        )


def check_database_is_at_head(context: EnvironmentContext) -> None:
    """Refuse to compare the models with a database that lacks revisions; they would come twice."""
    if not _is_revision(context.config, autogenerate=True):
        return
    database, code = context.get_context().get_current_heads(), context.script.get_heads()
    if set(database) != set(code):
        raise CommandError(
            f"the database is at {_listed(database)} and not at the code's head, {_listed(code)};"
            " bring it to head first, by upgrade head, and then write the revision"
        )


def refuse_empty(context: MigrationContext, _: object, scripts: list[MigrationScript]) -> None:
    """Leave no file behind when autogenerate finds nothing: a hook of `context.configure`."""
    if not _is_revision(context.config, autogenerate=True):
        return
    if all(script.upgrade_ops is None or script.upgrade_ops.is_empty() for script in scripts):
        raise CommandError(
            "nothing to write: models and database are alike (a new model has to be imported in"
            " app/models/__init__.py; to only move data, leave out --autogenerate)"
        )


def tell_in_one_line() -> None:
    """End with one line, without a traceback and without the same line from the log."""
    sys.excepthook = _tell
    # Alembic prints an error as FAILED and logs it, too: the same line twice on a terminal.
    if sys.stdout.isatty() and sys.stderr.isatty():
        logging.getLogger("alembic.util.messaging").setLevel(logging.CRITICAL)


def reason(error: BaseException) -> str:
    """Return the problem in one line, with the place if it is in a revision."""
    cause = error.orig or error if isinstance(error, DBAPIError) else error
    # PostgreSQL shows the statement in the lines after the first.
    words = str(error.msg if isinstance(error, SyntaxError) else cause).strip().partition("\n")[0]
    place = _place(error)
    if place:
        return f"{place}: {type(cause).__name__}: {words}"
    if isinstance(error, OperationalError):
        return f"the database cannot be used: {words}"
    return words if isinstance(error, CommandError) else f"{type(cause).__name__}: {words}"


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, OperationalError) and not _place(error):
        print(f"FAILED: {reason(error)}; start it, or correct DATABASE_URL", file=sys.stderr)
    elif _is_raised_by_import(error):
        print(f"FAILED: {reason(error)}; the revision does not import, correct it", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _is_revision(config: Config | None, *, autogenerate: bool = False) -> bool:
    """Return whether the command is `alembic revision`, and with --autogenerate if requested."""
    options = config and config.cmd_opts
    if getattr(options, "cmd", (None,))[0] is not command.revision:
        return False
    return options.autogenerate or not autogenerate


def _is_raised_by_import(error: BaseException) -> bool:
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_in_a_revision(frame.filename)
    ]
    return inside[0].name == "<module>" if inside else bool(_place(error))


def _place(error: BaseException) -> str:
    """Give the file and line of a revision that an error came out of, or nothing."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    inside = [(Path(name).resolve(), line) for name, line in frames if _is_in_a_revision(name)]
    return f"{inside[-1][0].relative_to(BACK).as_posix()}, line {inside[-1][1]}" if inside else ""


def _is_in_a_revision(name: str) -> bool:
    return VERSIONS in Path(name).resolve().parents


def _listed(revisions: Iterable[str]) -> str:
    return ", ".join(sorted(revisions)) or "base (no revision is applied)"
