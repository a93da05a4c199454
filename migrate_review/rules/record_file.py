"""Reads and writes ``reviewed.json`` in the Alembic tree, which lists reviewed revisions and is packaged with the tree.

.. code-block:: json

    {"version": 2, "revisions": {"70c5e2b8f19d": {"sha256": "...", "reviewed": true,
        "findings": [{"rule", "severity", "message", "reason"}], "measured": {...}}}}

``sha256`` is the hash of `tree.substance`. ``findings`` are the findings of the review. ``reason`` is that of the
acknowledgement, or null without one. A revision with an error is recorded, but does not count as ``reviewed``. `facts`
makes ``measured``. A file without ``version`` has version 1: its entries have only ``sha256`` and ``findings``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.schema import fingerprint
from lambda_migrate.revisions.reviewed import FILE
from migrate_review.errors import ReviewError
from migrate_review.rules.facts import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from migrate_review.observation import Observation
    from migrate_review.revisions.tree import RevisionSource, Tree
    from migrate_review.rules.acknowledgements import Sorted


# The version of the file.
VERSION = 2


def file_of(tree: Tree) -> Path:
    """Return the path of the file."""
    return tree.location / FILE


def recorded(tree: Tree) -> Mapping[str, Mapping[str, Any]]:
    """Return the entry of each recorded revision, in the form of today's version. Without a file, there is none.

    Raises:
        ReviewError: the file does not have the form that `record` writes.
    """
    path = file_of(tree)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = {id_: _entry(entry) for id_, entry in content["revisions"].items()}
        version = int(content.get("version", 1))
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReviewError(f"{path} is no file of reviewed revisions; restore it, or remove it") from error
    if version > VERSION:
        raise ReviewError(f"{path} is of version {version}, which a newer migrate wrote; update this one")
    return entries


def _entry(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry in the form that `record` writes. An entry of version 1 is reviewed, without measurements."""
    return {
        "sha256": str(found["sha256"]),
        "reviewed": bool(found.get("reviewed", True)),
        "findings": found["findings"],
        "measured": found.get("measured"),
    }


def record(
    tree: Tree,
    reviews: Iterable[tuple[RevisionSource, Sorted, Observation | None]],
    *,
    passed: Callable[[Sorted], bool],
) -> int:
    """Record revisions that were measured, or that passed, and replace their earlier entries.

    Returns:
        The number of those that count as reviewed.
    """
    entries = dict(recorded(tree))
    new: list[str] = []
    for revision, result, observation in reviews:
        measured = facts(observation) if observation is not None else None
        if measured is None and not passed(result):
            continue
        standing = [(found, None) for found in result.standing]
        entries[revision.id] = {
            "sha256": revision.sha256,
            "reviewed": passed(result),
            "findings": [
                {"rule": found.rule, "severity": found.severity.value, "message": found.message, "reason": reason}
                for found, reason in (*standing, *result.acknowledged)
            ],
            "measured": measured,
        }
        new.append(revision.id)
        if measured is not None and observation is not None and not _follows(revision, measured, entries):
            measured["schema"]["base"] = dict(observation.schema_before or {})
    known = [revision.id for revision in tree.revisions]
    # In the tree's order, so that the entries of two branches conflict in git if their revisions do.
    ordered = {id_: entries[id_] for id_ in (*known, *sorted(entries.keys() - set(known))) if id_ in entries}
    file_of(tree).write_text(_text(ordered), encoding="utf-8", newline="\n")
    return sum(entries[each]["reviewed"] for each in new)


def _text(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the file's text. A revision's measurements are one line, so that a change of them is a short diff."""
    shown = {id_: {**entry, "measured": f"measured {id_}"} for id_, entry in entries.items()}
    text = json.dumps({"version": VERSION, "revisions": shown}, indent=2)
    for id_, entry in entries.items():
        text = text.replace(json.dumps(f"measured {id_}"), json.dumps(entry["measured"]), 1)
    return text + "\n"


def _follows(revision: RevisionSource, measured: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether the record of the parents contains all objects before a revision."""
    before = measured["schema"]["before"]
    parents = [(entries.get(parent) or {}).get("measured") for parent in revision.down_revisions]
    if not parents:
        return bool(before == fingerprint({}))
    if not all(parents):
        return False
    return len(parents) > 1 or any(parent["schema"]["after"] == before for parent in parents if parent)
