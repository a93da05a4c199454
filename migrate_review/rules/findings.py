"""Defines a finding and its severity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """The severity of a finding. An error stops the pipeline, a warning needs attention, a note informs."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One hazard in a revision, and the safer way.

    ``message`` is the effect in production, ``evidence`` the measurement, and ``fix`` the safer way as Alembic code, or
    an instruction. ``path`` is the revision's file and ``line`` the place in it, from 1, for annotations.
    """

    revision: str
    rule: str
    severity: Severity
    message: str
    evidence: str
    fix: str
    path: str | None = None
    line: int | None = None
