"""Squawk's rules, acknowledgements, the graph and git: cases that a single revision does not show."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.revisions import reviewed
from migrate_review.errors import ReviewError
from migrate_review.observation import Catalog, Execution, Observation, Statement
from migrate_review.review import passes
from migrate_review.revisions import git
from migrate_review.revisions.tree import RevisionSource, read_tree, substance
from migrate_review.rules import graph, record_file, squawk
from migrate_review.rules.acknowledgements import acknowledgements, sort_out
from migrate_review.rules.rulebook import RULES, finding
from tests.support.trees import ALEMBIC_INI, ENV_PY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.revisions.tree import Tree

REVISION = '''"""{id}"""

revision = "{id}"
down_revision = {parent}


def upgrade() -> None:
    pass  # {words}


def downgrade() -> None:
    pass
'''


NOTHING = Catalog((), {}, {})


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    """A backend in a git repository, with revisions one and two on main."""
    folder = tmp_path / "back"
    (folder / "alembic" / "versions").mkdir(parents=True)
    (folder / "alembic.ini").write_text(ALEMBIC_INI, encoding="utf-8")
    (folder / "alembic" / "env.py").write_text(ENV_PY, encoding="utf-8")
    run_git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    write(folder, "one", None)
    write(folder, "two", "one")
    commit(tmp_path, "main")
    run_git(tmp_path, "checkout", "--quiet", "-b", "feature")
    return folder


def write(backend: Path, id_: str, parent: str | None, words: str = "nothing") -> Path:
    path = backend / "alembic" / "versions" / f"{id_}.py"
    path.write_text(REVISION.format(id=id_, parent=repr(parent), words=words), encoding="utf-8")
    return path


def run_git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, words: str) -> None:
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message", words)


def history(backend: Path, ref: str = "main") -> list[tuple[str, str]]:
    tree = read_tree(backend)
    return [(found.revision, found.rule) for found in graph.history(tree, git.released(tree, ref))]


def new(backend: Path, ref: str = "main") -> list[str]:
    tree: Tree = read_tree(backend)
    return [revision.id for revision in git.released(tree, ref).new(tree)]


def test_new_revisions_are_those_that_main_has_not_committed_or_not(backend: Path) -> None:
    write(backend, "three", "two")
    commit(backend, "three")
    write(backend, "four", "three")

    assert new(backend) == ["three", "four"]
    assert history(backend) == []


def test_a_released_revision_must_stay_as_it_was_but_for_comments(backend: Path) -> None:
    path = write(backend, "one", None)
    path.write_text("# -- reviewed: nothing\n\n" + path.read_text(encoding="utf-8"), encoding="utf-8", newline="\r\n")
    assert history(backend) == []

    write(backend, "one", None, words="something else")
    assert history(backend) == [("one", "edited-after-release")]

    path.unlink()
    assert history(backend) == [("one", "deleted-after-release")]


def test_a_revision_must_build_on_the_current_head_of_main(backend: Path, tmp_path: Path) -> None:
    write(backend, "mine", "two")
    commit(tmp_path, "mine")
    run_git(tmp_path, "checkout", "--quiet", "main")
    write(backend, "theirs", "two")
    commit(tmp_path, "theirs")
    run_git(tmp_path, "checkout", "--quiet", "feature")

    assert history(backend) == [("mine", "parent-not-head")]
    assert new(backend) == ["mine"]

    run_git(tmp_path, "merge", "--quiet", "main")
    assert {found.rule for found in graph.shape(read_tree(backend))} == {"several-heads"}

    write(backend, "mine", "theirs")
    assert history(backend) == []
    assert list(graph.shape(read_tree(backend))) == []


def test_the_error_of_an_unknown_branch_names_the_fetch(backend: Path) -> None:
    with pytest.raises(ReviewError, match=r"git does not know origin/main; fetch it: .*fetch-depth: 0"):
        git.released(read_tree(backend), "origin/main")


def test_a_reference_is_no_option_of_gits(backend: Path) -> None:
    with pytest.raises(ReviewError, match="git does not know"):
        git.released(read_tree(backend), "--all")


def test_without_a_repository_there_is_no_since(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    (folder / "alembic" / "versions").mkdir(parents=True)
    (folder / "alembic.ini").write_text(ALEMBIC_INI, encoding="utf-8")
    (folder / "alembic" / "env.py").write_text(ENV_PY, encoding="utf-8")
    with pytest.raises(ReviewError, match="--since needs a git repository"):
        git.released(read_tree(folder), "main")


def test_a_revision_that_alembic_cannot_load_is_found_without_loading_it(backend: Path) -> None:
    write(backend, "three", "gone")
    broken = backend / "alembic" / "versions" / "broken.py"
    broken.write_text("def upgrade(:\n", encoding="utf-8")

    found = {(one.revision, one.rule) for one in graph.shape(read_tree(backend))}

    assert {("three", "parent-missing"), ("broken", "does-not-load")} <= found


def test_a_revision_that_was_reviewed_is_known_again(backend: Path) -> None:
    tree = read_tree(backend)
    one = tree.revisions[0]
    note = finding("upgrade-empty", "one", "")
    assert record_file.record(tree, [(one, sort_out(one, [note]), None)], passed=passes) == 1
    recorded = record_file.recorded(tree)
    assert recorded["one"]["findings"] == [
        {"rule": "upgrade-empty", "severity": "note", "message": "The revision does nothing.", "reason": None}
    ]
    assert list(graph.earlier_reviews(tree, recorded)) == []

    write(backend, "one", None, words="x")
    assert [found.rule for found in graph.earlier_reviews(read_tree(backend), recorded)] == ["edited-after-review"]


def test_a_file_of_the_version_before_is_read_and_kept(backend: Path) -> None:
    tree = read_tree(backend)
    one = tree.revisions[0]
    old = {"revisions": {"one": {"sha256": one.sha256, "findings": []}, "gone": {"sha256": "0", "findings": []}}}
    (backend / "alembic" / "reviewed.json").write_text(json.dumps(old), encoding="utf-8")
    recorded = record_file.recorded(tree)
    assert recorded["one"] == {"sha256": one.sha256, "reviewed": True, "findings": [], "measured": None}
    record_file.record(tree, [], passed=passes)
    assert record_file.recorded(tree) == recorded


def test_a_file_of_a_version_to_come_is_refused(backend: Path) -> None:
    (backend / "alembic" / "reviewed.json").write_text('{"version": 99, "revisions": {}}', encoding="utf-8")
    with pytest.raises(ReviewError, match="is of version 99, which a newer migrate wrote"):
        record_file.recorded(read_tree(backend))


def test_a_revision_that_passed_before_is_not_reviewed_after_an_error(backend: Path) -> None:
    tree = read_tree(backend)
    one = tree.revisions[0]
    seen = Observation("one", {}, {}, NOTHING, Execution(()), NOTHING, schema_before={}, schema_after={"table t": "1"})
    record_file.record(tree, [(one, sort_out(one, [finding("upgrade-empty", "one", "")]), seen)], passed=passes)
    record_file.record(tree, [(one, sort_out(one, [DROPPED]), seen)], passed=passes)
    recorded = record_file.recorded(tree)["one"]
    assert recorded["reviewed"] is False
    assert recorded["measured"]["schema"]["changed"] == {"table t": "1"}
    write(backend, "one", None, words="x")
    assert list(graph.earlier_reviews(read_tree(backend), record_file.recorded(tree))) == []
    assert reviewed.findings(tree.location) == {}, "the function counts it as not reviewed"


def test_an_invalid_reviewed_json_is_refused(backend: Path) -> None:
    (backend / "alembic" / "reviewed.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ReviewError, match=r"reviewed.json is no file of reviewed revisions"):
        record_file.recorded(read_tree(backend))


@pytest.mark.parametrize(
    "line",
    [
        "# -- reviewed: ban-drop-column nobody reads it",
        "    -- reviewed: ban-drop-column nobody reads it",
        "# reviewed: ban-drop-column: nobody reads it",
        "# -- reviewed: ban-drop-column nobody\n#   reads it",
    ],
)
def test_an_acknowledgement_has_a_rule_and_a_reason(line: str) -> None:
    [found] = acknowledgements(line)
    assert (found.rule, found.reason, found.line) == ("ban-drop-column", "nobody reads it", 1)


def revision_saying(words: str, tmp_path: Path) -> RevisionSource:
    return RevisionSource("r", (), "", tmp_path / "r.py", words)


DROPPED = finding("ban-drop-column", "r", "it was there", table="t", column="c")


@pytest.mark.parametrize(
    "words,standing",
    [
        ("", ["ban-drop-column"]),
        ("# -- reviewed: ban-drop-column nobody reads it", []),
        ("# -- reviewed: ban-drop-column", ["ban-drop-column", "acknowledgement-without-reason"]),
        ("# -- reviewed: ban-drop-table nobody reads it", ["ban-drop-column", "unused-acknowledgement"]),
        ("# -- reviewed: no-such-rule because", ["ban-drop-column", "unused-acknowledgement"]),
    ],
)
def test_only_a_reason_acknowledges(words: str, standing: list[str], tmp_path: Path) -> None:
    result = sort_out(revision_saying(words, tmp_path), [DROPPED])
    assert [found.rule for found in result.standing] == standing
    assert [found.rule for found, _ in result.acknowledged] == ([] if standing else ["ban-drop-column"])


def test_an_edit_without_an_effect_is_no_change() -> None:
    assert substance("a = 1\n") == substance("# word\r\n\r\na = 1   \r\n") != substance("a = 2\n")


def rules_on(*sql: str, in_transaction: bool = True) -> list[tuple[int, str]]:
    statements = [Statement(one, 1.0, in_transaction=in_transaction) for one in sql]
    return [(remark.statement, remark.rule) for remark in squawk.remarks({"r": statements})["r"]]


def test_squawks_remarks_are_on_the_statement_that_they_are_about() -> None:
    assert rules_on("ALTER TABLE t\n  ADD COLUMN a text -- why", "ALTER TABLE t DROP COLUMN b;") == [
        (1, "ban-drop-column")
    ]


def test_a_statement_that_squawk_cannot_read_hides_no_other() -> None:
    assert rules_on("this is no SQL (", "ALTER TABLE t DROP COLUMN b") == [(1, "ban-drop-column")]


def test_squawk_gets_the_transactions_of_the_statements() -> None:
    concurrently = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)"
    assert rules_on(concurrently, in_transaction=False) == []
    assert rules_on(concurrently) == [(0, "ban-concurrent-index-creation-in-transaction")]


def test_a_rule_of_squawks_is_in_one_list_or_has_its_own_check() -> None:
    known = {name for name, rule in RULES.items() if rule.known_to_squawk}
    own = known - squawk.IF_OTHERS_WAIT - squawk.AS_REPORTED
    lists = [set(squawk.EXCLUDED), squawk.IF_OTHERS_WAIT, squawk.AS_REPORTED, own]
    together = [rule for each in lists for rule in each]
    assert len(together) == len(set(together))
    used = {rule for rule in together if rule not in squawk.EXCLUDED}
    assert used == known


def strings_below(module: str, function: str) -> Iterator[str]:
    """Yield the strings in a function of a module, in what it uses of this module, and in squawk's lists."""
    spec = find_spec(f"migrate_review.rules.{module}") or find_spec(f"migrate_review.{module}")
    assert spec is not None
    assert spec.origin is not None
    nodes: dict[str, ast.stmt] = {}
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]
        nodes |= {name: node for name in names if name is not None}
    waiting, known = [function], set[str]()
    while waiting:
        name = waiting.pop()
        known.add(name)
        for part in ast.walk(nodes[name]):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
            elif isinstance(part, ast.Name) and part.id in nodes.keys() - known:
                waiting.append(part.id)
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "squawk":
                found = getattr(squawk, part.attr)
                yield from found if isinstance(found, frozenset) else ()


@pytest.mark.parametrize("rule", RULES)
def test_the_file_of_a_rule_has_its_check_or_names_it(rule: str) -> None:
    module = import_module(f"migrate_review.rules.book.{rule.replace('-', '_')}")
    named = re.findall(r" `(\w+)\.(\w+)`", module.__doc__ or "")

    assert hasattr(module, "check") != bool(named)
    for check in named:
        assert rule in strings_below(*check)
