"""A review from the command line: what the arguments mean, and what is written where."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from localcloud.errors import LocalCloudError
from migrate_cli.errors import CommandError, ExitCode, UsageError
from migrate_cli.output import Output
from migrate_review.errors import ReviewError
from migrate_review.measure.session import reviewing
from migrate_review.reports import text, workflow
from migrate_review.reports.document import document
from migrate_review.reports.markdown import markdown
from migrate_review.reports.sarif import sarif
from migrate_review.review import Review, chosen, review
from migrate_review.revisions import git
from migrate_review.revisions.tree import read_tree
from migrate_review.rules import record_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from migrate_review.revisions.git import Released
    from migrate_review.revisions.tree import RevisionSource, Tree


@dataclass(frozen=True)
class Wanted:
    """What was asked for: revisions by name or by git, in which backend, measured with how many rows by whom."""

    names: tuple[str, ...]
    since: str | None
    backend: Path
    config: str
    rows: int
    python: Path | None
    record: bool


def run(wanted: Wanted, shape: str) -> ExitCode:
    """Make the review and write it in one of the command's formats."""
    output = Output("migrate review", as_json=shape == "json")
    try:
        tree, revisions, released = _meant(wanted)
        session = partial(reviewing, wanted.backend, wanted.config, python=wanted.python, rows=wanted.rows)
        result = review(tree, revisions, session, released=released, progress=_progress(output))
        if wanted.record:
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


def _meant(wanted: Wanted) -> tuple[Tree, tuple[RevisionSource, ...], Released | None]:
    """What the arguments mean; where they mean nothing it is the usage that is wrong."""
    try:
        tree = read_tree(wanted.backend, wanted.config)
        released = git.released(tree, wanted.since) if wanted.since is not None else None
        return tree, chosen(tree, wanted.names, released), released
    except ReviewError as error:
        raise UsageError(str(error)) from error


def _progress(output: Output) -> Callable[[RevisionSource], None]:
    """Tell a person who waits in a terminal which revision is being measured."""

    def tell(revision: RevisionSource) -> None:
        if output.notes.is_terminal:
            output.note(f"Measuring {revision.id} {revision.description}")

    return tell


def _record(tree: Tree, result: Review, output: Output) -> None:
    """Note the revisions without an error; the others are not reviewed."""
    passed = [one for one in result.revisions if one.passed]
    record_file.record(tree, [(one.revision, one.result) for one in passed])
    left = len(result.revisions) - len(passed)
    output.note(
        f"{len(passed)} revisions noted in {record_file.file_of(tree)}" + (f"; {left} with errors not" if left else "")
    )


def _show(result: Review, shape: str, output: Output) -> None:
    if shape == "text":
        text.show(result, output.results)
    elif shape == "github":
        for line in workflow.commands(result):
            sys.stdout.write(f"{line}\n")
        _summarize(result, output)
        text.show(result, output.notes)
    elif shape == "markdown":
        sys.stdout.write(markdown(result))
    else:
        found = document(result) if shape == "json" else sarif(result)
        # ASCII, so that no encoding stands in its way.
        sys.stdout.write(json.dumps(found) + "\n")
        if shape == "json":
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
