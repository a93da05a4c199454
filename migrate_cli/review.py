"""The command `review`: revisions looked at and measured on this machine, before they are merged. Needs no AWS."""

from __future__ import annotations

import json
import os
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localcloud.errors import LocalCloudError
from migrate_cli.errors import CommandError, ExitCode, UsageError
from migrate_cli.output import Output
from migrate_review import git, reviewed
from migrate_review.errors import ReviewError
from migrate_review.reports import text, workflow
from migrate_review.reports.document import document
from migrate_review.reports.markdown import markdown
from migrate_review.reports.sarif import sarif
from migrate_review.review import Review, chosen, review
from migrate_review.session import reviewing
from migrate_review.tree import read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from migrate_review.git import Released
    from migrate_review.tree import Revision, Tree


class Format(str, Enum):
    """For whom a review is written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"
    MARKDOWN = "markdown"


def command(
    revisions: Annotated[
        list[str] | None, typer.Argument(help="Ids, their beginnings, or head; without any, all.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="GITREF", help="Those that are new since this branch, such as origin/main.")
    ] = None,
    backend: Annotated[Path, typer.Option(help="The backend, which has the Alembic tree.")] = Path("back"),
    config: Annotated[str, typer.Option(help="alembic.ini or pyproject.toml, from the backend.")] = "alembic.ini",
    shape: Annotated[Format, typer.Option("--format", help="For a terminal, a program, or GitHub.")] = Format.TEXT,
    rows: Annotated[int, typer.Option(min=1, help="How many rows each table gets.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help=f"Note in {reviewed.NAME} of the tree what has passed.")
    ] = False,
    python: Annotated[
        Path | None, typer.Option(help="The backend's interpreter; without it, that of its .venv, or this one.")
    ] = None,
) -> int:
    """Review revisions by running them on a PostgreSQL with rows in it. Exits with 1 if there is an error."""
    if as_json and shape is not Format.TEXT and shape is not Format.JSON:
        raise UsageError(f"--json and --format {shape.value} are two forms of one answer", advice="Say one of them.")
    shape = Format.JSON if as_json else shape
    output = Output("migrate review", as_json=shape is Format.JSON)
    try:
        tree, wanted, released = _wanted(backend, config, revisions or [], since)
        session = partial(reviewing, backend, config, python=python, rows=rows)
        result = review(tree, wanted, session, released=released, progress=_progress(output))
        if record:
            _record(tree, result, output)
    except (ReviewError, LocalCloudError) as error:
        return output.fail(CommandError("ReviewError", str(error), ExitCode.AWS))
    except CommandError as error:
        return output.fail(error)
    except KeyboardInterrupt:
        return output.fail(CommandError("Interrupted", "the review was not finished", ExitCode.INTERRUPTED))
    for remark in result.remarks:
        output.note(remark)
    _show(result, shape, output)
    return ExitCode.OK if result.passed else ExitCode.FAILED


def _wanted(
    backend: Path, config: str, names: Sequence[str], since: str | None
) -> tuple[Tree, tuple[Revision, ...], Released | None]:
    """What the arguments mean; where they mean nothing it is the usage that is wrong."""
    try:
        tree = read_tree(backend, config)
        released = git.released(tree, since) if since is not None else None
        return tree, chosen(tree, names, released), released
    except ReviewError as error:
        raise UsageError(str(error)) from error


def _progress(output: Output) -> Callable[[Revision], None]:
    """Tell a person who waits in a terminal which revision is being measured."""

    def tell(revision: Revision) -> None:
        if output.notes.is_terminal:
            output.note(f"Measuring {revision.id} {revision.description}")

    return tell


def _record(tree: Tree, result: Review, output: Output) -> None:
    """Note the revisions without an error; the others are not reviewed."""
    passed = [one for one in result.revisions if one.passed]
    reviewed.record(tree, [(one.revision, one.result) for one in passed])
    left = len(result.revisions) - len(passed)
    output.note(
        f"{len(passed)} revisions noted in {reviewed.file_of(tree)}" + (f"; {left} with errors not" if left else "")
    )


def _show(result: Review, shape: Format, output: Output) -> None:
    if shape is Format.TEXT:
        text.show(result, output.results)
    elif shape is Format.GITHUB:
        for line in workflow.commands(result):
            sys.stdout.write(f"{line}\n")
        _summarize(result, output)
        text.show(result, output.notes)
    elif shape is Format.MARKDOWN:
        sys.stdout.write(markdown(result))
    else:
        found = document(result) if shape is Format.JSON else sarif(result)
        # ASCII, so that no encoding stands in its way.
        sys.stdout.write(json.dumps(found) + "\n")
        if shape is Format.JSON:
            text.show(result, output.notes)
    sys.stdout.flush()


def _summarize(result: Review, output: Output) -> None:
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as summary:
            summary.write(markdown(result))
    except OSError as error:
        output.note(f"the job's summary could not be written: {error}")
