"""A review as GitHub's workflow commands: each finding at its line of the changed files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.review import Review
    from migrate_review.rules.findings import Finding

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
# The escapes of GitHub's own toolkit.
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def commands(review: Review) -> Iterator[str]:
    """Yield a line for each finding, for standard output."""
    for found in review.findings:
        place = {"file": shown(found.path), "line": str(found.line or 1)} if found.path else {}
        properties = {**place, "title": f"{found.rule} ({found.revision})"}
        listed = ",".join(f"{name}={value.translate(_PROPERTY)}" for name, value in properties.items())
        yield f"::{_COMMANDS[found.severity.value]} {listed}::{_message(found).translate(_DATA)}"


def shown(path: str) -> str:
    """Return a file's path from the working folder, which in a workflow is the repository."""
    try:
        return os.path.relpath(path).replace(os.sep, "/")
    except ValueError:  # another drive
        return path


def _message(found: Finding) -> str:
    measured = f"\nMeasured: {found.evidence}" if found.evidence else ""
    return f"{found.message}{measured}\nThe safer way:\n{found.fix}"
