"""The facts that a person confirms before a change of production: how many revisions it applies, reverts or skips."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest
from alembic.script.revision import Revision, RevisionMap

from migrate_cli.confirmation import affected_revisions
from tests.support.aws_stub import Reply, failure, result

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended
    from tests.support.aws_stub import Stub

#: a1 - b2 - c3a - d4 - e5
#:          \ c3b /
CHAIN_WITH_A_MERGE = [
    Revision("a1", None),
    Revision("b2", "a1"),
    Revision("c3a", "b2"),
    Revision("c3b", "b2"),
    Revision("d4", ("c3a", "c3b")),
    Revision("e5", "d4"),
]


def two_trees(dependency: str) -> list[Revision]:
    """Return a1 - b2 - c3, and x1 - y2 - z3, whose y2 depends on a revision of the first tree."""
    first = [Revision("a1", None), Revision("b2", "a1"), Revision("c3", "b2")]
    return [*first, Revision("x1", None), Revision("y2", "x1", dependencies=dependency), Revision("z3", "y2")]


TREES = {"a merge": CHAIN_WITH_A_MERGE} | {f"depends on {name}": two_trees(name) for name in ("a1", "b2", "c3")}


class Person(io.StringIO):
    """A person at a terminal."""

    def isatty(self) -> bool:
        return True


def entries(tree: list[Revision]) -> list[dict[str, Any]]:
    """Return a tree as the action `history` does."""
    heads = RevisionMap(lambda: tree).heads
    found = []
    for revision in tree:
        down = revision.down_revision
        entry = {
            "revision": revision.revision,
            "description": "",
            "down_revisions": [down] if isinstance(down, str) else list(down or ()),
            "branch_labels": [],
            "head": revision.revision in heads,
        }
        found.append({**entry, "depends_on": [revision.dependencies]} if revision.dependencies else entry)
    return found


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_the_reverted_revisions_are_those_of_alembic(tree: list[Revision]) -> None:
    alembic = RevisionMap(lambda: tree)
    for wanted in (*(revision.revision for revision in tree), "base"):
        reverted = alembic.iterate_revisions(alembic.heads, wanted, select_for_downgrade=True)

        affected = affected_revisions(entries(tree), alembic.heads, "downgrade", wanted)

        assert affected == {revision.revision for revision in reverted}, wanted


@pytest.mark.parametrize("current", [(), ("a1",), ("b2",)], ids=str)
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_the_applied_revisions_are_those_of_alembic(tree: list[Revision], current: tuple[str, ...]) -> None:
    alembic = RevisionMap(lambda: tree)
    for wanted in (*(revision.revision for revision in tree if revision.revision not in {"a1", "b2"}), "heads"):
        applied = alembic.iterate_revisions(wanted, current, implicit_base=True)

        affected = affected_revisions(entries(tree), current, "upgrade", wanted)

        assert affected == {revision.revision for revision in applied}, wanted


@pytest.mark.parametrize(
    "current,wanted,skipped",
    [((), "b2", {"a1", "b2"}), (("b2",), "base", {"a1", "b2"}), (("c3a",), "c3b", {"c3a", "c3b"})],
    ids=["forwards", "back", "another branch"],
)
def test_a_stamp_runs_none_of_the_revisions_between(current: tuple[str, ...], wanted: str, skipped: set[str]) -> None:
    assert affected_revisions(entries(CHAIN_WITH_A_MERGE), current, "stamp", wanted) == skipped


@pytest.mark.parametrize("wanted,affected", [("e", {"e5"}), ("c3", None), ("f6", None)])
def test_the_beginning_of_an_id_is_enough_if_only_one_id_has_it(wanted: str, affected: set[str] | None) -> None:
    assert affected_revisions(entries(CHAIN_WITH_A_MERGE), ["d4"], "upgrade", wanted) == affected


def test_nothing_is_counted_from_a_revision_that_the_package_lacks() -> None:
    assert affected_revisions(entries(CHAIN_WITH_A_MERGE), ["newer"], "downgrade", "a1") is None


HISTORY = Reply(result("history", history=entries(CHAIN_WITH_A_MERGE), count=6))


@pytest.mark.parametrize(
    "command,replies,name,number",
    [
        ("upgrade", (), "applies:", "3 revisions"),
        ("upgrade d4", (HISTORY,), "applies:", "2 revisions"),
        ("downgrade a1", (HISTORY,), "reverts:", "2 revisions"),
        ("downgrade -1", (), "reverts:", "1 revision"),
        ("stamp base", (HISTORY,), "not run:", "3 revisions"),
        ("downgrade zz", (HISTORY,), "reverts:", "unknown: the revision is not in the package"),
        (
            "downgrade a1",
            (failure("ConfigurationError", "the package has no manifest"),),
            "reverts:",
            "unknown: ConfigurationError: the package has no manifest",
        ),
    ],
)
def test_the_confirmation_shows_the_number_of_revisions(
    aws: Stub,
    migrate: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    replies: tuple[Reply, ...],
    name: str,
    number: str,
) -> None:
    pending = [{"revision": revision, "description": ""} for revision in ("c3b", "d4", "e5")]
    aws.replies = [
        Reply(result("status", revision="c3a", pending=pending, up_to_date=False, lock=None)),
        *replies,
    ]
    monkeypatch.setattr(sys, "stdin", Person("no\n"))

    ended = migrate(*command.split(), "--stage", "prod")

    facts = dict(line.split(None, 1) for line in ended.err.replace("not run:", "not-run:").splitlines()[1:-1])
    assert facts[name.replace(" ", "-")] == number
    assert [event["action"] for event in aws.events] == ["status", *["history"] * len(replies)]
