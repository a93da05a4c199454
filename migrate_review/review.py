"""A review from end to end: chooses revisions, measures them and applies the rules."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from migrate_review.errors import ReviewError
from migrate_review.rules import graph, record_file, squawk
from migrate_review.rules.acknowledgements import Sorted, sort_out
from migrate_review.rules.book import not_measured
from migrate_review.rules.case import Case, scripts
from migrate_review.rules.findings import Finding, Severity
from migrate_review.rules.judge import judge
from migrate_review.rules.rulebook import finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from migrate_review.observation import Observation
    from migrate_review.revisions.git import Released
    from migrate_review.revisions.tree import RevisionSource, Tree

    class Session(Protocol):
        """Measures revisions; `reviewing` yields one."""

        def observe(self, revision: str) -> Observation:
            """Return the measurements of a revision."""

        def drift(self) -> tuple[str, ...]:
            """Return the differences between the models and the head."""


_BREAKS_THE_TREE = frozenset({"does-not-load", "parent-missing"})


@dataclass(frozen=True)
class Reviewed:
    """One revision with its measurements and findings."""

    revision: RevisionSource
    observation: Observation | None
    result: Sorted

    @property
    def passed(self) -> bool:
        """Return whether no finding is an error, except for acknowledged ones."""
        return passes(self.result)

    @property
    def unmeasured(self) -> bool:
        """Return whether a part of the revision, or all of it, could not be measured."""
        return self.observation is None or bool(self.observation.unmeasured)


def passes(result: Sorted) -> bool:
    """Return whether no finding is an error, except for acknowledged ones."""
    return not any(found.severity is Severity.ERROR for found in result.standing)


@dataclass(frozen=True)
class Review:
    """The reviewed revisions, the findings on other revisions, and remarks about checks that were not possible.

    A review that is not ``finished`` was interrupted: it has the revisions that were measured until then.
    """

    revisions: tuple[Reviewed, ...]
    beside: tuple[Finding, ...]
    remarks: tuple[str, ...]
    duration_s: float
    finished: bool = True

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings that are not acknowledged, in the order of the revisions."""
        return (*(found for one in self.revisions for found in one.result.standing), *self.beside)

    @property
    def passed(self) -> bool:
        """Return whether the review is complete, and none of `findings` is an error."""
        return self.finished and not any(found.severity is Severity.ERROR for found in self.findings)


def chosen(tree: Tree, names: Sequence[str], released: Released | None) -> tuple[RevisionSource, ...]:
    """Return the revisions to review: those that ``names`` name. Without names, those that are not released, or all.

    Raises:
        ReviewError: no revision has the name, or several do.
    """
    if not names:
        return released.new(tree) if released is not None else tree.revisions
    wanted: dict[str, RevisionSource] = {}
    for name in names:
        found = tree.find(name)
        if not found:
            unread = "".join(f"; {file.path.name} cannot be read: {file.reason}" for file in tree.unreadable)
            raise ReviewError(f"there is no revision {name} in {tree.location}; pass the id of one, or head{unread}")
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
    progress: Callable[[str], None] = lambda _: None,
    allow_unmeasured: bool = False,
) -> Review:
    """Return the findings on the revisions, their graph and their history.

    With ``allow_unmeasured``, a revision that could not be measured is a warning and no error. ``progress`` gets a few
    words before each step. If the review is interrupted, the revisions that were measured until then are judged.

    Nothing is measured if Alembic cannot load the tree, or if there is nothing to review.

    Raises:
        ReviewError: the review failed for a reason other than a revision.
    """
    started = time.monotonic()
    beside = [
        *graph.shape(tree),
        *(graph.history(tree, released) if released is not None else ()),
        *graph.earlier_reviews(tree, record_file.recorded(tree)),
    ]
    complete = bool(revisions) and not any(found.rule in _BREAKS_THE_TREE for found in beside)
    measured = _measure(tree, revisions, session, progress) if complete else _Measured({})
    if not measured.finished:
        revisions = [revision for revision in revisions if revision.id in measured.observations]
    beside += measured.drift
    observations = measured.observations
    remarks = squawk.remarks(scripts(observations))
    results = []
    for revision in revisions:
        seen = observations.get(revision.id)
        own: tuple[Finding, ...] = ()
        if seen is not None:
            up, down = remarks[revision.id, "upgrade"], remarks[revision.id, "downgrade"]
            own = judge(Case(seen, up, revision, down))
        if allow_unmeasured:
            own = tuple(_allowed(found) for found in own)
        general = tuple(_placed(found, tree) for found in beside if found.revision == revision.id)
        results.append(Reviewed(revision, seen, sort_out(revision, (*own, *general), complete=complete)))
    reviewed = {revision.id for revision in revisions}
    elsewhere = tuple(_placed(found, tree) for found in beside if found.revision not in reviewed)
    left = _not_acknowledged(tree, elsewhere)
    duration_s = time.monotonic() - started
    return Review(tuple(results), left, measured.remarks, duration_s, finished=measured.finished)


@dataclass(frozen=True)
class _Measured:
    """The observations by revision, findings on the models' drift, and remarks about failed measurements."""

    observations: Mapping[str, Observation]
    drift: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()
    finished: bool = True


def _measure(
    tree: Tree,
    revisions: Sequence[RevisionSource],
    session: Callable[[], AbstractContextManager[Session]],
    progress: Callable[[str], None],
) -> _Measured:
    observations: dict[str, Observation] = {}
    with session() as measuring:
        try:
            for number, revision in enumerate(revisions, start=1):
                progress(f"measuring {revision.id} {revision.description} ({number} of {len(revisions)})")
                observations[revision.id] = measuring.observe(revision.id)
        except KeyboardInterrupt:
            if not observations:
                raise
            return _Measured(observations, finished=False)
        # If the head fails, there is no schema to compare the models with.
        if len(tree.heads) == 1 and _went_up(observations.get(tree.heads[0])):
            try:
                return _Measured(observations, tuple(_drift(tree.heads[0], measuring.drift())))
            except ReviewError as error:  # env.py gives Alembic no models
                return _Measured(observations, remarks=(str(error),))
    return _Measured(observations)


def _went_up(seen: Observation | None) -> bool:
    return seen is not None and seen.upgrade.failure is None


def _allowed(found: Finding) -> Finding:
    return replace(found, severity=Severity.WARNING) if found.rule == not_measured.RULE.name else found


def _drift(head: str, differences: tuple[str, ...]) -> Iterable[Finding]:
    if differences:
        more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
        yield finding("models-differ", head, "; ".join(differences), difference=f"{differences[0]}{more}")


def _not_acknowledged(tree: Tree, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return the findings on revisions that are not being reviewed, without those that they acknowledge."""
    by_id = {revision.id: revision for revision in tree.revisions}
    standing: list[Finding] = []
    for found in findings:
        revision = by_id.get(found.revision)
        if revision is None or found in sort_out(revision, [found], complete=False).standing:
            standing.append(found)
    return tuple(standing)


def _placed(found: Finding, tree: Tree) -> Finding:
    """Return the finding with its file, if there is one."""
    if found.path is not None:
        return found
    files = {revision.id: revision.path for revision in tree.revisions}
    files |= {file.path.stem: file.path for file in tree.unreadable}
    path = files.get(found.revision)
    return replace(found, path=str(path), line=1) if path is not None else found
