"""Defines a finding and its severity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """How much a finding matters: an error stops the pipeline, a warning asks for a look, a note informs."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One hazard in a revision, and the safer way.

    ``message`` says what happens in production, ``evidence`` what was measured, ``fix`` is the safer way as Alembic
    code, or what to do. ``path`` is the revision's file and ``line`` where it is in it, from 1, for annotations.
    """

    revision: str
    rule: str
    severity: Severity
    message: str
    evidence: str
    fix: str
    path: str | None = None
    line: int | None = None
