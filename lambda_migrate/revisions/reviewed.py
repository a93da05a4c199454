"""The reviewer's findings about the packaged revisions, from ``reviewed.json`` in the backend's tree."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "reviewed.json"


def measured(tree: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return what the reviewer measured of each revision, as docs/review.md has it; none that was not measured.

    Raises:
        ConfigurationError: as `findings`.
    """
    with _readable():
        return {revision: entry["measured"] for revision, entry in _recorded(tree).items() if entry.get("measured")}


def findings(tree: Path) -> Mapping[str, list[dict[str, Any]]]:
    """Return the findings of each reviewed revision. A revision that is missing was not reviewed.

    No finding stopped its revision. Each has ``rule``, ``severity``, ``message``, and ``reason`` if acknowledged.

    Raises:
        ConfigurationError: the file exists but cannot be read.
    """
    with _readable():
        # A revision with an error is recorded with what was measured of it, and was not reviewed.
        return {
            revision: list(entry["findings"])
            for revision, entry in _recorded(tree).items()
            if entry.get("reviewed", True)
        }


def acknowledged(tree: Path) -> Mapping[str, Mapping[str, str | None]]:
    """Return the rules of each revision's findings, each with the reason that acknowledges it, or None.

    Raises:
        ConfigurationError: as `findings`.
    """
    found: dict[str, dict[str, str | None]] = {}
    with _readable():
        for revision, entry in _recorded(tree).items():
            rules = found.setdefault(revision, {})
            for each in entry["findings"]:
                reason = each.get("reason")
                # A finding that is not acknowledged overrides an acknowledged one of the same rule.
                rules[each["rule"]] = reason if rules.get(each["rule"], reason) else None
    return found


def _recorded(tree: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        text = (tree / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    recorded: Mapping[str, Mapping[str, Any]] = json.loads(text)["revisions"]
    return recorded


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{FILE} in the packaged tree is not what `migrate review --record` writes") from None
