"""The tree as Alembic loaded it, and the revisions that each of its revisions needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class LoadedRevision:
    """A revision as Alembic loaded it. ``parents`` and ``dependencies`` are full ids.

    ``empty`` maps ``upgrade`` and ``downgrade`` to whether the function does nothing. ``upgrade_texts`` are the string
    constants of its upgrade: column names and values that it may look for. ``inserted`` are the values that it inserts,
    each with its table.
    """

    revision: str
    description: str
    parents: tuple[str, ...]
    dependencies: tuple[str, ...]
    path: Path
    empty: Mapping[str, bool]
    upgrade_texts: str
    inserted: frozenset[tuple[str, str]]

    def source(self) -> str:
        """Return the text of its file."""
        return self.path.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class LoadedTree:
    """The revisions by id, parents first. ``heads`` have no children."""

    revisions: Mapping[str, LoadedRevision]
    heads: tuple[str, ...]

    def ancestors(self, revision: str) -> list[str]:
        """Return the revisions that must be applied before this one, parents first."""
        wanted: set[str] = set()
        left = [revision]
        while left:
            each = self.revisions[left.pop()]
            new = {*each.parents, *each.dependencies} - wanted
            wanted |= new
            left.extend(new)
        return [each for each in self.order() if each in wanted]

    def with_ancestors(self, revisions: Iterable[str]) -> list[str]:
        """Return these revisions and those that must be applied before them, parents first."""
        several = [revision for revision in revisions if revision in self.revisions]
        wanted = {*several, *(each for revision in several for each in self.ancestors(revision))}
        return [each for each in self.order() if each in wanted]

    def order(self) -> list[str]:
        """Return all revisions, parents and dependencies first. Alembic's walk orders by parents only."""
        ordered: dict[str, None] = {}

        def visit(revision: str) -> None:
            stack = [(revision, False)]
            while stack:
                current, ready = stack.pop()
                if current in ordered:
                    continue
                if ready:
                    ordered[current] = None
                    continue
                stack.append((current, True))
                each = self.revisions[current]
                stack.extend((parent, False) for parent in (*each.dependencies, *each.parents))

        for revision in self.revisions:
            visit(revision)
        return list(ordered)

    def has_siblings(self, revision: str) -> bool:
        """Return whether other revisions have the same parents, and so need the database in the same state."""
        own = self.revisions[revision]
        return any(
            (each.parents, each.dependencies) == (own.parents, own.dependencies)
            for each in self.revisions.values()
            if each is not own
        )

    def files(self, revisions: Sequence[str]) -> list[Path]:
        """Return the files of these revisions."""
        return [self.revisions[each].path for each in revisions]


def loaded(found: Mapping[str, Any]) -> LoadedTree:
    """Return the tree that the driver found."""
    revisions = (
        LoadedRevision(
            each["revision"],
            each["description"],
            tuple(each["parents"]),
            tuple(each["dependencies"]),
            Path(each["path"]),
            each["empty"],
            each["upgrade_texts"],
            frozenset((table, value) for table, value in each["inserted"]),
        )
        for each in found["revisions"]
    )
    return LoadedTree({each.revision: each for each in revisions}, tuple(found["heads"]))
