"""The revisions together: their graph, their history in git, and earlier reviews."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.rulebook import finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from migrate_review.revisions.git import Released
    from migrate_review.revisions.tree import Tree
    from migrate_review.rules.findings import Finding


def shape(tree: Tree) -> Iterator[Finding]:
    """Say what keeps Alembic from loading the tree, or from finding one head."""
    for file in tree.unreadable:
        yield finding("does-not-load", file.path.stem, str(file.path), failure=file.reason, path=str(file.path))
    known = {revision.id for revision in tree.revisions}
    for revision in tree.revisions:
        for parent in revision.down_revisions:
            if parent not in known:
                evidence = f"{revision.path.name}: down_revision = {parent!r}"
                yield finding("parent-missing", revision.id, evidence, parent=parent)
    heads = tree.heads
    # Heads that carry branch labels are meant to be several.
    if sum(not revision.labelled for revision in tree.revisions if revision.id in heads) > 1:
        for head in heads[1:]:
            evidence = "; ".join(
                f"{revision.id} builds on {', '.join(revision.down_revisions) or 'nothing'}"
                for revision in tree.revisions
                if revision.id in heads
            )
            yield finding("several-heads", head, evidence, heads=", ".join(heads), heads_spaced=" ".join(heads))


def history(tree: Tree, released: Released) -> Iterator[Finding]:
    """Say what was changed of revisions that are released, and whether the new ones are built on the newest of them."""
    by_id = {revision.id: revision for revision in tree.revisions}
    ref = released.ref
    for old in released.base.values():
        now = by_id.get(old.id)
        path = _shown(old.path, tree)
        if now is None:
            yield finding("deleted-after-release", old.id, f"{path} is there on {ref}", ref=ref, path=path)
        elif now.sha256 != old.sha256:
            evidence = f"first difference: {_first_difference(old.text, now.text)}"
            yield finding("edited-after-release", old.id, evidence, ref=ref, path=path)
    new = {revision.id: revision for revision in released.new(tree)}
    built_on = {parent for revision in new.values() for parent in revision.down_revisions if parent not in new}
    if not released.heads or set(released.heads) <= built_on:
        return
    for revision in new.values():
        for parent in revision.down_revisions:
            if parent not in new and parent not in released.heads:
                heads = ", ".join(released.heads)
                evidence = f"{revision.path.name}: down_revision = {parent!r}; heads of {ref}: {heads}"
                yield finding("parent-not-head", revision.id, evidence, parent=parent, ref=ref, heads=heads)


def earlier_reviews(tree: Tree, recorded: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Say which revisions are not what was reviewed."""
    for revision in tree.revisions:
        entry = recorded.get(revision.id)
        if entry is not None and entry["sha256"] != revision.sha256:
            evidence = f"recorded {entry['sha256'][:12]}, is {revision.sha256[:12]}"
            yield finding("edited-after-review", revision.id, evidence)


def _shown(path: Path, tree: Tree) -> str:
    return path.relative_to(tree.backend).as_posix() if path.is_relative_to(tree.backend) else path.as_posix()


def _first_difference(old: str, new: str) -> str:
    was, now = (text.splitlines() for text in (old, new))
    for place, (one, other) in enumerate(zip(was, now, strict=False), start=1):
        if one != other and (one.strip() or other.strip()):
            return f"line {place} was `{one.strip()}` and is `{other.strip()}`"
    return f"line {min(len(was), len(now)) + 1}"
