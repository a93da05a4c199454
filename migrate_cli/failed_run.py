"""A failed run according to its log: the applied revisions, the failure and its place, and the revisions not run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class FailedRun:
    """The facts of a failed run. A fact that the log does not have is None or empty.

    ``applied`` are the revisions that were committed, each with ``revision``, ``description`` and ``duration_ms``.
    ``revision`` is the one that failed or that was running. ``file`` and ``line`` are its place in the backend.
    ``not_run`` are the ids of the revisions after it. ``detail`` and ``hint`` are the server's.
    """

    applied: tuple[Mapping[str, Any], ...] = ()
    revision: str | None = None
    description: str | None = None
    file: str | None = None
    line: int | None = None
    statement: str | None = None
    sqlstate: str | None = None
    detail: str | None = None
    hint: str | None = None
    not_run: tuple[str, ...] = ()

    @property
    def place(self) -> str | None:
        """Return the file and line in the form that editors open."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract's error."""
        failed = [self.revision] if self.revision else []
        return {
            "revision": self.revision,
            "statement": self.statement,
            "sqlstate": self.sqlstate,
            "file": self.file,
            "line": self.line,
            "applied": [dict(step) for step in self.applied],
            "pending": [*failed, *self.not_run],
        }


def failed_run(lines: Iterable[Mapping[str, Any]]) -> FailedRun:
    """Return the failure that a run's log lines show, oldest line first."""
    applied: list[Mapping[str, Any]] = []
    running: Mapping[str, Any] = {}
    descriptions: dict[str, str] = {}
    failed: Mapping[str, Any] = {}
    for line in lines:
        event = line["event"]
        if event == "revision.started":
            running = line
            descriptions[str(line.get("revision"))] = str(line.get("description", ""))
        elif event == "revision.applied":
            applied.append({name: line.get(name) for name in ("revision", "description", "duration_ms")})
            running = {}
        elif event == "migration.failed":
            failed = line
    revision = failed.get("revision") or running.get("revision")
    place = failed.get("line")
    return FailedRun(
        applied=tuple(applied),
        revision=_text(revision),
        description=descriptions.get(str(revision)),
        line=place if isinstance(place, int) else None,
        not_run=tuple(str(each) for each in failed.get("pending") or () if each != revision),
        **{name: _text(failed.get(name)) for name in ("file", "statement", "sqlstate", "detail", "hint")},
    )


def _text(value: object) -> str | None:
    return str(value) if value is not None else None
