"""A review from the command line: its arguments, and its output."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_migrate.invocation.wording import counted
from localcloud.errors import LocalCloudError
from migrate_cli import stages
from migrate_cli.errors import CommandError, ExitCode, UsageError
from migrate_cli.output import Output
from migrate_review.errors import ReviewError
from migrate_review.measure.session import reviewing
from migrate_review.reports import text, workflow
from migrate_review.reports.document import document
from migrate_review.reports.explanation import explanation, similar
from migrate_review.reports.gitlab import code_quality
from migrate_review.reports.junit import junit
from migrate_review.reports.markdown import markdown
from migrate_review.reports.sarif import sarif
from migrate_review.review import Review, chosen, passes, review
from migrate_review.revisions import git
from migrate_review.revisions.tree import read_tree
from migrate_review.rules import record_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from migrate_review.measure.session import Where
    from migrate_review.revisions.git import Released
    from migrate_review.revisions.tree import RevisionSource, Tree


@dataclass(frozen=True)
class Wanted:
    """The command's options: the revisions of a backend, and how to measure them."""

    names: tuple[str, ...]
    since: str | None
    backend: Path
    config: str | None
    rows: int
    python: Path | None
    record: bool
    allow_unmeasured: bool
    stage: str | None
    where: Where


def run(wanted: Wanted, shape: str) -> ExitCode:
    """Make the review and print it in one of the formats."""
    output = Output("migrate review", as_json=shape == "json")
    try:
        config = wanted.config or configuration(wanted.backend)
        tree, revisions, released = _meant(wanted, config)
        session = partial(
            reviewing,
            wanted.backend,
            config,
            python=wanted.python,
            rows=wanted.rows,
            where=wanted.where,
            variables=stages.environment(wanted.stage),
            record=wanted.record,
        )
        with _Progress(output) as progress:
            result = review(
                tree,
                revisions,
                partial(session, progress=progress),
                released=released,
                progress=progress,
                allow_unmeasured=wanted.allow_unmeasured,
            )
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
    if not result.finished:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if result.passed else ExitCode.FAILED


def explain(rule: str) -> ExitCode:
    """Print the explanation of a rule."""
    output = Output("migrate review", as_json=False)
    text_ = explanation(rule)
    if text_ is None:
        near = ", ".join(similar(rule)) or "docs/review.md lists them"
        return output.fail(UsageError(f"there is no rule {rule}", advice=f"Rules of a similar name: {near}."))
    sys.stdout.write(text_)
    return ExitCode.OK


def configuration(backend: Path) -> str:
    """Return the backend's configuration, as the builder of the package finds it, or else alembic.ini."""
    if (backend / "alembic.ini").is_file():
        return "alembic.ini"
    # The builder loads slowly.
    from infra.package.errors import PackageError  # noqa: PLC0415
    from infra.package.layout import find_config  # noqa: PLC0415

    try:
        return find_config(backend)
    except PackageError:
        return "alembic.ini"  # the review reports the error


def _meant(wanted: Wanted, config: str) -> tuple[Tree, tuple[RevisionSource, ...], Released | None]:
    """Return the parsed arguments, or raise `UsageError`."""
    try:
        tree = read_tree(wanted.backend, config)
        released = git.released(tree, wanted.since) if wanted.since is not None else None
        return tree, chosen(tree, wanted.names, released), released
    except ReviewError as error:
        raise UsageError(str(error)) from error


class _Progress:
    """Shows the current step of the review: every step in a terminal, and every few seconds elsewhere."""

    _EVERY_S = 5.0

    def __init__(self, output: Output) -> None:
        self._output = output
        self._step = "starting PostgreSQL"
        self._began = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        if not self._output.notes.is_terminal:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def __call__(self, step: str) -> None:
        """Show a step that starts."""
        self._step = step
        if self._output.notes.is_terminal:
            self._output.note(step)

    def _repeat(self) -> None:
        while not self._done.wait(self._EVERY_S):
            self._output.note(f"{time.monotonic() - self._began:.0f} s: {self._step}")


def _record(tree: Tree, result: Review, output: Output) -> None:
    """Record the measurements. A revision with an error is recorded, too, but does not count as reviewed."""
    reviews = [(one.revision, one.result, one.observation) for one in result.revisions]
    reviewed = record_file.record(tree, reviews, passed=passes)
    left = len(reviews) - reviewed
    output.note(
        f"{counted(reviewed, 'revision')} recorded as reviewed in {record_file.file_of(tree)}"
        + (f"; {left} with errors are not" if left else "")
    )


def _show(result: Review, shape: str, output: Output) -> None:
    if shape == "text":
        text.show(result, output.results)
    elif shape == "github":
        for line in workflow.commands(result):
            sys.stdout.write(f"{line}\n")
        _summarize(result, output)
        text.show(result, output.notes)
    elif shape in _TEXTS:
        sys.stdout.write(_TEXTS[shape](result))
    else:
        # ASCII works with every encoding.
        sys.stdout.write(json.dumps(_DOCUMENTS[shape](result)) + "\n")
        if shape == "json":
            text.show(result, output.notes)
    sys.stdout.flush()


_TEXTS: Mapping[str, Callable[[Review], str]] = {"markdown": markdown, "junit": junit}
_DOCUMENTS: Mapping[str, Callable[[Review], object]] = {"json": document, "sarif": sarif, "gitlab": code_quality}


def _summarize(result: Review, output: Output) -> None:
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as summary:
            summary.write(markdown(result))
    except OSError as error:
        output.note(f"the job's summary could not be written: {error}")
