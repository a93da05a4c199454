"""Reads and writes ``reviewed.json`` in the Alembic tree, which lists reviewed revisions and is packaged with the tree.

.. code-block:: json

    {"revisions": {"70c5e2b8f19d": {"sha256": "...", "findings": [{"rule", "severity", "message", "reason"}]}}}

``sha256`` is of the revision's text as UTF-8, without lines that are blank or a comment and without spaces at the end
of a line, lines joined by a newline. ``findings`` are those that stood, with ``reason`` null, and those that were
acknowledged, each with its reason.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lambda_migrate.revisions.reviewed import FILE
from migrate_review.errors import ReviewError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from migrate_review.revisions.tree import RevisionSource, Tree
    from migrate_review.rules.acknowledgements import Sorted


def file_of(tree: Tree) -> Path:
    """Return the path of the file."""
    return tree.location / FILE


def recorded(tree: Tree) -> Mapping[str, Mapping[str, Any]]:
    """Return the entry of each recorded revision, none if there is no file.

    Raises `ReviewError` if the file is not what `record` writes.
    """
    path = file_of(tree)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["revisions"]
        return {id_: {"sha256": str(entry["sha256"]), "findings": entry["findings"]} for id_, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReviewError(f"{path} is no file of reviewed revisions; restore it, or remove it") from error


def record(tree: Tree, reviews: Iterable[tuple[RevisionSource, Sorted]]) -> None:
    """Record revisions that passed, and replace their earlier entries."""
    entries = dict(recorded(tree))
    for revision, result in reviews:
        standing = [(found, None) for found in result.standing]
        entries[revision.id] = {
            "sha256": revision.sha256,
            "findings": [
                {"rule": found.rule, "severity": found.severity.value, "message": found.message, "reason": reason}
                for found, reason in (*standing, *result.acknowledged)
            ],
        }
    known = [revision.id for revision in tree.revisions]
    # In the tree's order, so that two branches that each add a revision change the same place, as their files do.
    ordered = {id_: entries[id_] for id_ in (*known, *sorted(entries.keys() - set(known))) if id_ in entries}
    file_of(tree).write_text(json.dumps({"revisions": ordered}, indent=2) + "\n", encoding="utf-8", newline="\n")
