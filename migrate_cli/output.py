"""Writes results to standard output, messages to standard error, and annotations for GitHub Actions."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from migrate_cli import github, presentation
from migrate_cli.errors import CommandError, ExitCode, FaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    Show = Callable[[Mapping[str, Any], Console], None]


class Output:
    """One command's output. With ``as_json``, standard output is exactly one JSON document."""

    def __init__(self, title: str, *, as_json: bool) -> None:
        self._title = title
        self._as_json = as_json
        self.results = presentation.console(sys.stdout)
        self.notes = presentation.console(sys.stderr)

    def note(self, text: str) -> None:
        """Print a message beside the result."""
        self.notes.print(presentation.plain(text), style="dim", markup=False, soft_wrap=True)

    # The document comes last, so that no later error adds a second one.

    def succeed(
        self, result: Mapping[str, Any], show: Show = presentation.show, advice: Callable[[], str] = str
    ) -> ExitCode:
        """Show a result and the next step, and return the exit code. An unhealthy result has exit code 1.

        ``advice`` returns the next step. It is called when the result has been shown, and not with ``as_json``.
        """
        healthy = result.get("healthy", True)
        if not self._as_json:
            show(result, self.results)
            presentation.show_advice(advice(), self.notes)
        if github.is_here():
            if not healthy:
                failed = [step["step"] for step in result["steps"] if step["ok"] is False]
                github.annotate(self._title, CommandError("NotHealthy", ", ".join(failed), ExitCode.FAILED), sys.stderr)
            self._summarize(result)
        if self._as_json:
            self._print_json(result)
        return ExitCode.OK if healthy else ExitCode.FAILED

    def report(
        self, report: Mapping[str, Any], show: Show, error: CommandError | None, *, advice: str = ""
    ) -> ExitCode:
        """Show a report and the next step. With an error, show that too, and return its exit code."""
        if not self._as_json:
            show(report, self.results)
            presentation.show_advice(advice, self.notes)
        if error is not None:
            self.show_error(error)
        if github.is_here():
            if error is not None:
                github.annotate(self._title, error, sys.stderr)
            self._summarize(report)
        if self._as_json:
            self._print_json(report)
        return ExitCode.OK if error is None else error.exit_code

    def fail(self, error: CommandError) -> ExitCode:
        """Show an error, and return its exit code."""
        self.show_error(error)
        if github.is_here():
            github.annotate(self._title, error, sys.stderr)
            self._summarize(error)
        if self._as_json:
            self._print_json(error.as_json())
        return error.exit_code

    def fail_by_fault(self, error: Exception) -> ExitCode:
        """Show an unexpected error."""
        try:
            sys.stdout.flush()
        except OSError:
            # Standard output itself is broken, so there is no place for a message.
            presentation.discard(sys.stdout)
        return self.fail(FaultError(error))

    def show_error(self, error: CommandError) -> None:
        """Show the applied revisions, the error and the next step."""
        shown = {"errorType": error.kind, "errorMessage": error.message}
        presentation.show_applied(error.run, self.notes)
        presentation.show_error(shown, self.notes)
        presentation.show_failure(error.run, error.request_id, error.runbook, self.notes)
        presentation.show_advice(error.advice, self.notes)

    def _print_json(self, document: Mapping[str, Any]) -> None:
        # Not with Rich, which may change the text. ASCII works with every encoding.
        try:
            sys.stdout.write(json.dumps(document) + "\n")
            sys.stdout.flush()
        except OSError as error:
            presentation.discard(sys.stdout)
            # If the reader has closed the pipe, the exit code stays. A full disk changes it.
            if not isinstance(error, BrokenPipeError):
                raise

    def _summarize(self, outcome: Mapping[str, Any] | CommandError) -> None:
        try:
            github.summarize(self._title, outcome)
        except OSError as error:
            self.note(f"the job's summary could not be written: {error}")
