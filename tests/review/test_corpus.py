"""Each revision of the corpus is found to break exactly the rules that it names, and the good ones none."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from migrate_review.measure.session import reviewing
from migrate_review.reports import page
from migrate_review.revisions.tree import read_tree
from migrate_review.rules import squawk
from migrate_review.rules.rule import Theme
from migrate_review.rules.rulebook import RULES
from tests.support.screenshots import PLAN_COLUMNS, REVIEW, rows, show_review

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud.postgres import Server
    from migrate_review.measure.session import Session
    from migrate_review.revisions.tree import RevisionSource

CORPUS = Path(__file__).parent / "corpus"
TREE = read_tree(CORPUS)
WRITTEN = [line for file in (page.PAGE, page.CORPUS_PAGE) for line in file.read_text(encoding="utf-8").splitlines()]
CASES = {kind: [one for one in TREE.revisions if one.path.parent.name == kind] for kind in ("bad", "good")}


def expected(revision: RevisionSource) -> set[str]:
    """Return the rules in the revision's own comment."""
    comment = re.search(r"^# expect: (.*)$", revision.text, re.MULTILINE)
    return {each.strip() for each in comment[1].split(",")} if comment else set()


def sample(kind: str) -> set[str]:
    """Return the cases of `make test`: few that break all rules, and some of the good ones. `make stress` has all."""
    if kind == "good":
        return {revision.id for revision in CASES[kind][::10]}
    shown: dict[str, str] = {}
    # Those that break most come first.
    for revision in sorted(CASES[kind], key=lambda one: len(expected(one)), reverse=True):
        for each in expected(revision):
            rule = each.split()[0]
            shown.setdefault("any as reported" if rule in squawk.AS_REPORTED else rule, revision.id)
    return set(shown.values())


def cases(kind: str) -> list[object]:
    # A worker measures all of a kind, in one review.
    mark, some = pytest.mark.xdist_group(f"corpus-{kind}"), sample(kind)
    return [
        pytest.param(revision, id=revision.id, marks=[mark] if revision.id in some else [mark, pytest.mark.stress])
        for revision in CASES[kind]
    ]


@pytest.fixture(scope="module")
def session(postgres_server: Server) -> Iterator[Session]:
    with reviewing(CORPUS, on=postgres_server) as opened:
        yield opened


@pytest.mark.parametrize("revision", cases("bad"))
def test_a_bad_revision_has_exactly_the_expected_findings(session: Session, revision: RevisionSource) -> None:
    found, alone = page.seen_by_both(session, revision)

    assert {f"{one.rule} {one.severity.value}" for one in found} == expected(revision)
    for one in found:
        assert one.evidence, "a finding says what was measured"
        compile(one.fix, one.rule, "exec")  # the safer way is Python
        assert one.path == str(revision.path)
        assert 1 <= (one.line or 0) <= len(revision.text.splitlines())
    assert page.row(revision, found, alone) in WRITTEN, "python -m migrate_review.reports.page"


@pytest.mark.parametrize("revision", cases("good"))
def test_a_good_revision_has_no_finding(session: Session, revision: RevisionSource) -> None:
    found, alone = page.seen_by_both(session, revision)

    assert found == ()
    assert page.row(revision, found, alone) in WRITTEN


def test_the_corpus_is_large_enough_and_has_a_case_for_each_rule_of_one_revision() -> None:
    assert len(CASES["bad"]) >= 40
    assert len(CASES["good"]) >= 40
    broken = {each.split()[0] for revision in CASES["bad"] for each in expected(revision)}
    of_one_revision = {name for name, rule in RULES.items() if rule.theme is not Theme.GRAPH}
    # None can be tried beside others: test_roles and test_unmeasured have cases of two.
    elsewhere = {"ban-drop-database", "not-measured", "role-restricted"}
    assert of_one_revision - broken == elsewhere


def test_the_page_has_every_rule_as_it_is() -> None:
    assert page.rules().strip() in page.PAGE.read_text(encoding="utf-8"), "python -m migrate_review.reports.page"


def test_the_page_counts_what_its_rows_say() -> None:
    for kind, cases in CASES.items():
        rows = [line.split(" | ") for line in WRITTEN for one in cases if line.startswith(f"| {one.id} |")]
        [row] = [line for line in WRITTEN if line.startswith(f"| {kind} revisions with a finding, of")]
        ours, alone = (sum(row[place].strip(" |") != "nothing" for row in rows) for place in (1, 2))
        assert row == f"| {kind} revisions with a finding, of {len(cases)} | {ours} | {alone} |"


def test_the_picture_of_a_review_is_what_a_review_shows_today(postgres_server: Server, tmp_path: Path) -> None:
    console = Console(width=PLAN_COLUMNS, file=(shown := StringIO()), force_terminal=True, color_system=None)
    show_review(tmp_path, console, postgres_server)

    assert words(rows(REVIEW)) == words(shown.getvalue().splitlines()), "make screenshots"


def words(lines: list[str]) -> list[str]:
    """Return the words of lines without durations, which may also move a line break."""
    return re.sub(r"\d[\d.]*\s+m?s\b", "", " ".join(lines)).split()
