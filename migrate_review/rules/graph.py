"""Checks of all revisions together: their graph, their history in git, and earlier reviews."""

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


_MOST_SHOWN = 5


def shape(tree: Tree) -> Iterator[Finding]:
    """Yield the problems that keep Alembic from loading the tree, or from finding one head."""
    for file in tree.unreadable:
        yield finding("does-not-load", file.path.stem, str(file.path), failure=file.reason, path=str(file.path))
    known = {revision.id for revision in tree.revisions}
    for revision in tree.revisions:
        for parent in revision.down_revisions:
            if parent not in known:
                evidence = f"{revision.path.name}: down_revision = {parent!r}"
                yield finding("parent-missing", revision.id, evidence, parent=parent)
    yield from _several_heads(tree)


def _several_heads(tree: Tree) -> Iterator[Finding]:
    ids = tree.heads
    heads = [revision for revision in tree.revisions if revision.id in ids]
    # A team that labels its branches wants several heads.
    if sum(not head.labelled for head in heads) > 1:
        built_on = [f"{head.id} builds on {', '.join(head.down_revisions) or 'nothing'}" for head in heads]
        more = f"; and {len(built_on) - _MOST_SHOWN} more" if len(built_on) > _MOST_SHOWN else ""
        evidence = "; ".join(built_on[:_MOST_SHOWN]) + more
        few = len(ids) <= _MOST_SHOWN
        shown = ", ".join(ids) if few else f"{', '.join(ids[:_MOST_SHOWN])} and {len(ids) - _MOST_SHOWN} more"
        # Only one finding, at the last head, because all heads have the same cause.
        spaced = " ".join(ids) if few else "heads"
        yield finding("several-heads", heads[-1].id, evidence, heads=shown, heads_spaced=spaced)


def history(tree: Tree, released: Released) -> Iterator[Finding]:
    """Yield the released revisions that were changed, and the new ones that do not build on the newest released one."""
    yield from _changed_after_release(tree, released)
    yield from _parents_not_head(tree, released)


def _changed_after_release(tree: Tree, released: Released) -> Iterator[Finding]:
    by_id = {revision.id: revision for revision in tree.revisions}
    ref = released.ref
    for old in released.base.values():
        now = by_id.get(old.id)
        path = _shown(old.path, tree)
        if now is None:
            yield finding("deleted-after-release", old.id, f"{ref} has {path}", ref=ref, path=path)
        elif now.sha256 != old.sha256:
            evidence = f"first difference: {_first_difference(old.text, now.text)}"
            yield finding("edited-after-release", old.id, evidence, ref=ref, path=path)


def _parents_not_head(tree: Tree, released: Released) -> Iterator[Finding]:
    new = {revision.id: revision for revision in released.new(tree)}
    built_on = {parent for revision in new.values() for parent in revision.down_revisions if parent not in new}
    if not released.heads or set(released.heads) <= built_on:
        return
    ref, heads = released.ref, ", ".join(released.heads)
    for revision in new.values():
        for parent in revision.down_revisions:
            if parent not in new and parent not in released.heads:
                evidence = f"{revision.path.name}: down_revision = {parent!r}; heads of {ref}: {heads}"
                yield finding("parent-not-head", revision.id, evidence, parent=parent, ref=ref, heads=heads)


def earlier_reviews(tree: Tree, recorded: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield the revisions that were changed after their review."""
    for revision in tree.revisions:
        entry = recorded.get(revision.id)
        if entry is not None and entry["reviewed"] and entry["sha256"] != revision.sha256:
            evidence = f"recorded {entry['sha256'][:12]}, is {revision.sha256[:12]}"
            yield finding("edited-after-review", revision.id, evidence)


def _shown(path: Path, tree: Tree) -> str:
    return path.relative_to(tree.backend).as_posix() if path.is_relative_to(tree.backend) else path.as_posix()


def _first_difference(old: str, new: str) -> str:
    was, now = (text.splitlines() for text in (old, new))
    for position, (one, other) in enumerate(zip(was, now, strict=False), start=1):
        if one != other and (one.strip() or other.strip()):
            return f"line {position} was `{one.strip()}` and is `{other.strip()}`"
    return f"line {min(len(was), len(now)) + 1}"
