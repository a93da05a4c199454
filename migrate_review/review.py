"""A review from end to end: what is looked at, what is measured, and what is said of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from migrate_review.errors import ReviewError
from migrate_review.rules import graph, record_file, squawk
from migrate_review.rules.acknowledgements import Sorted, sort_out
from migrate_review.rules.case import Case, attempted
from migrate_review.rules.findings import Finding, Severity
from migrate_review.rules.judge import judge
from migrate_review.rules.rulebook import finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from migrate_review.observation import Observation
    from migrate_review.revisions.git import Released
    from migrate_review.revisions.tree import RevisionSource, Tree

    class Session(Protocol):
        """What measures; `reviewing` makes one."""

        def observe(self, revision: str) -> Observation:
            """Measure a revision."""

        def drift(self) -> tuple[str, ...]:
            """Compare the models with the head."""


_BREAKS_THE_TREE = frozenset({"does-not-load", "parent-missing"})


@dataclass(frozen=True)
class Reviewed:
    """One revision, what was measured of it, and what is said of it."""

    revision: RevisionSource
    observation: Observation | None
    result: Sorted

    @property
    def passed(self) -> bool:
        """Whether no error stands."""
        return not any(found.severity is Severity.ERROR for found in self.result.standing)


@dataclass(frozen=True)
class Review:
    """What was reviewed, what is said of revisions beside those, and remarks on what could not be looked at."""

    revisions: tuple[Reviewed, ...]
    beside: tuple[Finding, ...]
    remarks: tuple[str, ...]
    duration_s: float

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that stand, in the order of the revisions."""
        return (*(found for one in self.revisions for found in one.result.standing), *self.beside)

    @property
    def passed(self) -> bool:
        """Whether there is no error among them."""
        return not any(found.severity is Severity.ERROR for found in self.findings)


def chosen(tree: Tree, names: Sequence[str], released: Released | None) -> tuple[RevisionSource, ...]:
    """The revisions that are meant: by name, by git, or all.

    Raises `ReviewError` for a name that no revision has, or several.
    """
    if not names:
        return released.new(tree) if released is not None else tree.revisions
    wanted: dict[str, RevisionSource] = {}
    for name in names:
        found = tree.find(name)
        if not found:
            unread = "".join(f"; {file.path.name} cannot be read: {file.reason}" for file in tree.unreadable)
            named = f"name one by its id, or say head{unread}"
            raise ReviewError(f"there is no revision {name} in {tree.location}; {named}")
        if len(found) > 1 and name != "heads":
            ids = ", ".join(revision.id for revision in found)
            raise ReviewError(f"{name} may be any of {ids}; name one by more of its id")
        wanted.update({revision.id: revision for revision in found})
    return tuple(revision for revision in tree.revisions if revision.id in wanted)


def review(
    tree: Tree,
    revisions: Sequence[RevisionSource],
    session: Callable[[], AbstractContextManager[Session]],
    *,
    released: Released | None = None,
    progress: Callable[[RevisionSource], None] = lambda _: None,
) -> Review:
    """Measure the revisions, and judge them, their graph and their history.

    Nothing is measured where the tree cannot be loaded, or there is nothing to review.
    Raises `ReviewError` if something beside the revisions keeps the review from being made.
    """
    started = time.monotonic()
    beside = [
        *graph.shape(tree),
        *(graph.history(tree, released) if released is not None else ()),
        *graph.earlier_reviews(tree, record_file.recorded(tree)),
    ]
    observations: dict[str, Observation] = {}
    remarks: list[str] = []
    measured = bool(revisions) and not any(found.rule in _BREAKS_THE_TREE for found in beside)
    if measured:
        with session() as measuring:
            for revision in revisions:
                progress(revision)
                observations[revision.id] = measuring.observe(revision.id)
            # Where the head fails that is the finding, and there is no schema to compare with.
            if len(tree.heads) == 1 and _went_up(observations.get(tree.heads[0])):
                try:
                    beside += _drift(tree.heads[0], measuring.drift())
                except ReviewError as error:  # an env.py without models: there is nothing to compare
                    remarks.append(str(error))
    said = squawk.remarks({id_: attempted(seen) for id_, seen in observations.items()})
    results = []
    for revision in revisions:
        seen = observations.get(revision.id)
        own = judge(Case(seen, said[revision.id], revision)) if seen is not None else ()
        general = tuple(_placed(found, tree) for found in beside if found.revision == revision.id)
        results.append(Reviewed(revision, seen, sort_out(revision, (*own, *general), complete=measured)))
    named = {revision.id for revision in revisions}
    elsewhere = tuple(_placed(found, tree) for found in beside if found.revision not in named)
    left = _not_acknowledged(tree, elsewhere)
    return Review(tuple(results), left, tuple(remarks), time.monotonic() - started)


def _went_up(seen: Observation | None) -> bool:
    return seen is not None and seen.upgrade.failure is None


def _drift(head: str, differences: tuple[str, ...]) -> Iterable[Finding]:
    if differences:
        more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
        yield finding("models-differ", head, "; ".join(differences), difference=f"{differences[0]}{more}")


def _not_acknowledged(tree: Tree, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those on revisions that are not being reviewed, less what these acknowledge."""
    by_id = {revision.id: revision for revision in tree.revisions}
    standing: list[Finding] = []
    for found in findings:
        revision = by_id.get(found.revision)
        if revision is None or found in sort_out(revision, [found], complete=False).standing:
            standing.append(found)
    return tuple(standing)


def _placed(found: Finding, tree: Tree) -> Finding:
    """The same with its file, where there is one."""
    if found.path is not None:
        return found
    files = {revision.id: revision.path for revision in tree.revisions}
    files |= {file.path.stem: file.path for file in tree.unreadable}
    path = files.get(found.revision)
    return replace(found, path=str(path), line=1) if path is not None else found
