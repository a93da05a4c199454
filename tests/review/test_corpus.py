"""Each revision of the corpus is found to break exactly the rules that it names, and the good ones none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from migrate_review import squawk
from migrate_review.acknowledgements import sort_out
from migrate_review.rulebook import RULES, Theme
from migrate_review.rules import judge
from migrate_review.rules.case import Case, attempted
from migrate_review.session import reviewing
from migrate_review.tree import read_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud.postgres import Server
    from migrate_review.findings import Finding
    from migrate_review.session import Session
    from migrate_review.tree import Revision

CORPUS = Path(__file__).parent / "corpus"
TREE = read_tree(CORPUS)
CASES = {kind: [one for one in TREE.revisions if one.path.parent.name == kind] for kind in ("bad", "good")}


def expected(revision: Revision) -> set[str]:
    """What the revision's own comment says is wrong with it."""
    told = re.search(r"^# expect: (.*)$", revision.text, re.MULTILINE)
    return {each.strip() for each in told[1].split(",")} if told else set()


def cases(kind: str) -> list[object]:
    # A worker measures all of a kind, in one review.
    mark = pytest.mark.xdist_group(f"corpus-{kind}")
    return [pytest.param(revision, id=revision.id, marks=mark) for revision in CASES[kind]]


@pytest.fixture(scope="module")
def session(postgres_server: Server) -> Iterator[Session]:
    with reviewing(CORPUS, on=postgres_server) as opened:
        yield opened


def findings(session: Session, revision: Revision) -> tuple[Finding, ...]:
    seen = session.observe(revision.id)
    remarks = squawk.remarks({revision.id: attempted(seen)})[revision.id]
    return sort_out(revision, judge(Case(seen, remarks, revision))).standing


@pytest.mark.parametrize("revision", cases("bad"))
def test_what_is_wrong_is_found_and_nothing_else(session: Session, revision: Revision) -> None:
    found = findings(session, revision)

    assert {f"{one.rule} {one.severity.value}" for one in found} == expected(revision)
    for one in found:
        assert one.evidence, "a finding says what was measured"
        compile(one.fix, one.rule, "exec")  # the safer way is Python
        assert one.path == str(revision.path)
        assert 1 <= (one.line or 0) <= len(revision.text.splitlines())


@pytest.mark.parametrize("revision", cases("good"))
def test_nothing_is_said_of_a_revision_that_is_right(session: Session, revision: Revision) -> None:
    assert findings(session, revision) == ()


def test_the_corpus_is_large_enough_and_has_a_case_for_each_rule_of_one_revision() -> None:
    assert len(CASES["bad"]) >= 40
    assert len(CASES["good"]) >= 40
    broken = {each.split()[0] for revision in CASES["bad"] for each in expected(revision)}
    of_one_revision = {name for name, rule in RULES.items() if rule.theme is not Theme.GRAPH}
    elsewhere = {"ban-drop-database", "not-measured"}  # neither can be tried beside others
    assert of_one_revision - broken == elsewhere
