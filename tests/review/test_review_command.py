"""`migrate review` on the command line: exit codes, and the content of each format."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from migrate_cli import cli
from migrate_review.observation import Catalog, Execution, Lock, Observation, Statement
from migrate_review.reports import summary, workflow
from migrate_review.reports.document import document
from migrate_review.reports.gitlab import code_quality
from migrate_review.reports.junit import junit
from migrate_review.reports.markdown import markdown
from migrate_review.reports.sarif import sarif
from migrate_review.review import Review, Reviewed
from migrate_review.revisions.tree import RevisionSource
from migrate_review.rules.acknowledgements import Sorted
from migrate_review.rules.case import Case
from migrate_review.rules.rulebook import RULES, finding
from tests.support.checkout import ROOT
from tests.support.processes import interruptible, killing
from tests.support.samples import sampled
from tests.support.trees import ALEMBIC_INI, ENV_PY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("review-command")

BASE = """
from alembic import op

revision = "begins"
down_revision = None

def upgrade():
    op.execute("CREATE TABLE t (id bigint CONSTRAINT pk_t PRIMARY KEY, a text)")

def downgrade():
    op.execute("DROP TABLE t")
"""
DROPS = """
# {words}
from alembic import op
import sqlalchemy as sa

revision = "drops"
down_revision = "begins"

def upgrade():
    op.drop_column("t", "a")

def downgrade():
    op.add_column("t", sa.Column("a", sa.Text()))
"""
REASONS = "-- reviewed: ban-drop-column nobody reads it\n# -- reviewed: values-lost they are worth nothing"


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    versions = tmp_path / "alembic" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "alembic.ini").write_text(ALEMBIC_INI, encoding="utf-8")
    (tmp_path / "alembic" / "env.py").write_text(ENV_PY, encoding="utf-8")
    (versions / "begins.py").write_text(BASE, encoding="utf-8")
    (versions / "drops.py").write_text(DROPS.format(words="as it is"), encoding="utf-8")
    return tmp_path


def migrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "migrate_cli", "review", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def without_steps(stderr: str) -> list[str]:
    """The lines of standard error, without the steps that are shown on a busy machine."""
    return [line for line in stderr.splitlines() if not re.match(r"\d+ s: ", line)]


def test_an_error_is_found_acknowledged_recorded_and_watched(backend: Path) -> None:
    failed = migrate("--backend", str(backend), "--json", "--rows", "20", "--record")
    written = json.loads(failed.stdout)
    assert failed.returncode == 1, failed.stderr
    assert [one["revision"] for one in written["revisions"]] == ["begins", "drops"]
    assert {one["rule"] for one in written["findings"]} == {"ban-drop-column", "values-lost"}
    assert {frozenset(one) for one in written["findings"]} == {
        frozenset({"revision", "rule", "severity", "message", "evidence", "fix"})
    }
    reviewed = backend / "alembic" / "reviewed.json"
    entries = json.loads(reviewed.read_text())["revisions"]
    assert {id_: entry["reviewed"] for id_, entry in entries.items()} == {"begins": True, "drops": False}
    assert entries["drops"]["measured"]["schema"]["changed"] == {"column t.a": None}

    (backend / "alembic" / "versions" / "drops.py").write_text(DROPS.format(words=REASONS), encoding="utf-8")
    passed = migrate("--backend", str(backend), "drop", "--record")
    assert passed.returncode == 0, passed.stderr
    assert "acknowledged ban-drop-column: nobody reads it" in passed.stdout
    recorded = json.loads(reviewed.read_text())["revisions"]["drops"]
    assert recorded["reviewed"] is True
    assert {one["reason"] for one in recorded["findings"]} == {"nobody reads it", "they are worth nothing"}

    changed = DROPS.format(words=REASONS).replace('"drops"\n', '"drops"\nMORE = 1\n')
    (backend / "alembic" / "versions" / "drops.py").write_text(changed, encoding="utf-8")
    edited = migrate("--backend", str(backend), "begins", "--format", "sarif")
    assert edited.returncode == 1
    assert [one["ruleId"] for one in json.loads(edited.stdout)["runs"][0]["results"]] == ["edited-after-review"]


def test_an_unreadable_revision_is_reported_whether_it_was_selected_or_not(backend: Path) -> None:
    (backend / "alembic" / "versions" / "torn.py").write_text("def upgrade(:\n", encoding="utf-8")
    asked = migrate("--backend", str(backend), "torn")
    assert asked.returncode == 2
    assert "there is no revision torn" in asked.stderr
    assert "torn.py cannot be read: SyntaxError: " in asked.stderr
    assert "(torn.py, line 1)" in asked.stderr

    beside = migrate("--backend", str(backend), "begins")
    assert beside.returncode == 1
    assert "? begins" in beside.stdout, "what was not measured does not look as if it had passed"
    assert "does-not-load" in beside.stdout


@pytest.mark.stress
def test_a_revision_that_ends_the_process_when_it_is_imported_is_reported_in_one_line(backend: Path) -> None:
    (backend / "alembic" / "versions" / "ends.py").write_text(
        'import os\n\nrevision = "ends"\ndown_revision = "begins"\nos._exit(7)\n', encoding="utf-8"
    )
    ended = migrate("--backend", str(backend), "ends")
    assert ended.returncode == 3
    [line] = without_steps(ended.stderr)
    assert line == "ReviewError: the tree cannot be loaded: the backend's process ended with exit code 7"


@pytest.mark.stress
def test_an_upgrade_that_fails_is_reported_once(backend: Path) -> None:
    (backend / "alembic" / "versions" / "drops.py").unlink()
    (backend / "alembic" / "versions" / "fails.py").write_text(
        DROPS.format(words="").replace("drops", "fails").replace('"t", "a"', '"t", "b"'), encoding="utf-8"
    )
    ended = migrate("--backend", str(backend), "fails")
    assert ended.returncode == 1
    verdict, to_do, *_ = ended.stdout.splitlines()
    assert verdict == "Failed: 1 error in 1 revision, 1 reviewed"
    assert to_do.startswith("  fails: upgrade-fails: The upgrade fails: UndefinedColumn")
    assert ended.stdout.count("error: upgrade-fails") == 1
    assert without_steps(ended.stderr) == [], "without a head there are no models to compare"


@pytest.mark.stress
def test_an_interrupted_review_reports_its_measurements(backend: Path) -> None:
    (backend / "alembic" / "versions" / "sleeps.py").write_text(
        DROPS.format(words="").replace('"drops"\n', '"sleeps"\n', 1).replace('op.drop_column("t", "a")',
        "open('began', 'w').close(); import time; time.sleep(50)"),
        encoding="utf-8",
    )  # fmt: skip
    (backend / "alembic" / "versions" / "drops.py").unlink()
    command = [sys.executable, "-m", "migrate_cli", "review", "--backend", str(backend), "--rows", "5"]
    with interruptible():
        started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with killing(started) as process:
        while not (backend / "began").exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert out.splitlines()[0] == "Not finished: the review was interrupted after 1 revision"
    assert "✓ begins" in out
    assert "sleeps" not in out


@pytest.mark.stress
def test_a_step_that_takes_long_is_shown_without_a_terminal(backend: Path) -> None:
    text = BASE.replace("def upgrade():\n", "def upgrade():\n    import time; time.sleep(3)\n")
    (backend / "alembic" / "versions" / "begins.py").write_text(text, encoding="utf-8")
    ended = migrate("--backend", str(backend), "begins", "--rows", "5")
    assert re.search(r"^\d+ s: measuring begins .*\(1 of 1\)$", ended.stderr, re.MULTILINE), ended.stderr


def test_a_rule_is_explained_without_a_review(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["migrate", "review", "--explain", "not-measured"])
    assert cli.main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("not-measured: error\n")
    assert "Measured: " in shown
    assert "# -- reviewed: not-measured <why it is safe here>" in shown
    monkeypatch.setattr(sys, "argv", ["migrate", "review", "--explain", "drop-column"])
    assert cli.main() == 2
    unknown = capsys.readouterr().err
    assert "there is no rule drop-column" in unknown
    assert "ban-drop-column" in unknown


WRONG = {
    "nine": "there is no revision nine",
    "--since no-such-branch": "git does not know no-such-branch; fetch it",
    "--backend docs": "no alembic.ini",
    "--json --format sarif": "exclude each other",
    "--format odd": "odd",
    "--rows 0": "greater than or equal to 1",
}


@pytest.mark.parametrize("arguments", sampled(WRONG, {"--since no-such-branch"}))
def test_wrong_use_measures_nothing_and_exits_with_2(arguments: str) -> None:
    ended = migrate(*arguments.split())
    assert ended.returncode == 2
    assert WRONG[arguments] in ended.stderr + ended.stdout


def a_review(tmp_path: Path) -> Review:
    text = 'revision = "r"\n\ndef upgrade():\n    op.drop_column("t", "c")\n'
    revision = RevisionSource("r", (), "Drop | c", tmp_path / "r, 1.py", text)
    statement = Statement("ALTER TABLE t DROP c", 1.2, in_transaction=True, locks=(Lock("t", "AccessExclusiveLock"),))
    nothing = Catalog((), {}, {})
    seen = Observation("r", {"t": 5}, {"u": "nothing fits"}, nothing, Execution((statement,)), nothing, Execution(()))
    case = Case(seen, (), revision)
    stands = case.found(RULES["ban-drop-column"], "100% of\n5 rows", table="t", column="c")
    reasoned = case.found(RULES["values-changed"], "1 of 5", table="t", column="c")
    beside = finding("deleted-after-release", "gone", "", ref="main", path="gone.py")
    return Review((Reviewed(revision, seen, Sorted((stands,), ((reasoned, "old"),))),), (beside,), (), 1.5)


def test_the_report_leads_with_the_verdict_and_what_to_do(tmp_path: Path) -> None:
    verdict = summary.verdict(a_review(tmp_path))
    assert verdict == "Failed: 2 errors in 2 revisions, 1 reviewed"
    first, second, how = summary.to_do(a_review(tmp_path))
    assert first.startswith("r: ban-drop-column: Every query")
    assert second.startswith("gone: deleted-after-release: ")
    assert "# -- reviewed: ban-drop-column <reason>" in how
    assert "migrate review --explain ban-drop-column" in how


def test_junit_has_a_case_for_each_revision_that_fails_with_its_errors(tmp_path: Path) -> None:
    suites = ET.fromstring(junit(a_review(tmp_path)))  # noqa: S314 - our own
    [suite] = suites
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "2", "0")
    case, beside = suite
    assert case.get("name") == "r Drop | c"
    [failure] = case.findall("failure")
    assert failure.get("type") == "ban-drop-column"
    assert "100% of\n5 rows" in (failure.text or "")
    assert "acknowledged values-changed: old" in (case.findtext("system-out") or "")
    assert beside.find("failure") is not None


def test_junit_omits_characters_that_xml_does_not_allow(tmp_path: Path) -> None:
    review = a_review(tmp_path)
    [one] = review.revisions
    found = replace(one.result.standing[0], evidence="a\x00b\x1b[31m\ud800c")
    broken = replace(review, revisions=(replace(one, result=Sorted((found,), ())),))
    root = ET.fromstring(junit(broken))  # noqa: S314 - our own
    text = root.findtext("testsuite/testcase/failure") or ""
    assert "ab[31mc" in text


def test_gitlab_gets_each_finding_with_a_place_and_a_fingerprint_that_lasts(tmp_path: Path) -> None:
    first, second = code_quality(a_review(tmp_path))
    assert first.keys() == {"description", "check_name", "fingerprint", "severity", "location"}
    assert (first["check_name"], first["severity"]) == ("ban-drop-column", "critical")
    assert first["location"]["lines"] == {"begin": 4}
    assert first["location"]["path"].endswith("r, 1.py")
    assert second["location"]["path"] == "gone", "GitLab needs a path"
    assert len({first["fingerprint"], second["fingerprint"]}) == 2


def test_annotations_point_to_the_line_and_are_one_line_each(tmp_path: Path) -> None:
    [first, second] = workflow.commands(a_review(tmp_path))
    assert first.startswith("::error file=")
    assert "r%2C 1.py,line=4,title=ban-drop-column (r)::" in first
    assert "100%25 of%0A5 rows" in first
    assert second.startswith("::error title=deleted-after-release (gone)::")
    assert "\n" not in first + second


def test_markdown_folds_the_safer_way_and_escapes_texts(tmp_path: Path) -> None:
    written = markdown(a_review(tmp_path))
    assert "| `r` Drop \\| c | ❌ | up 1 ms, down 0 ms; 5 rows in 1 table, 1 left empty |" in written
    assert "<details><summary>The safer way</summary>\n\n```python\n" in written
    assert "- `r` `values-changed`: old" in written
    assert "1 revision reviewed in 1.5 s: 2 errors, 1 acknowledged." in written


def test_the_document_leaves_out_acknowledged_findings(tmp_path: Path) -> None:
    written = document(a_review(tmp_path))
    assert [one["rule"] for one in written["findings"]] == ["ban-drop-column", "deleted-after-release"]
    assert written["revisions"][0]["locks"] == ["ACCESS EXCLUSIVE on t blocks reads and writes"]
    assert [one["reason"] for one in written["revisions"][0]["acknowledged"]] == ["old"]


# What SARIF 2.1.0 (OASIS, section 3) and GitHub's code scanning require of what is written here.
TEXT: dict[str, Any] = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string", "minLength": 1}},
}
SARIF: dict[str, Any] = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "$schema": {"type": "string", "format": "uri"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name", "rules"],
                                "properties": {
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id", "shortDescription"],
                                            "properties": {"shortDescription": TEXT, "help": TEXT},
                                        },
                                    }
                                },
                            }
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message", "ruleId", "level", "partialFingerprints"],
                            "properties": {
                                "message": TEXT,
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "suppressions": {
                                    "type": "array",
                                    "items": {
                                        "required": ["kind"],
                                        "properties": {"kind": {"enum": ["inSource", "external"]}},
                                    },
                                },
                                "locations": {
                                    "type": "array",
                                    "items": {
                                        "required": ["physicalLocation"],
                                        "properties": {
                                            "physicalLocation": {
                                                "required": ["artifactLocation", "region"],
                                                "properties": {
                                                    "artifactLocation": {
                                                        "required": ["uri"],
                                                        "properties": {"uri": {"pattern": "^[^ ]+$"}},
                                                    },
                                                    "region": {"properties": {"startLine": {"minimum": 1}}},
                                                },
                                            }
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_sarif_is_what_code_scanning_takes(tmp_path: Path) -> None:
    written = sarif(a_review(tmp_path))
    jsonschema.validate(written, SARIF)
    [run] = written["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert [rules[one["ruleIndex"]] for one in run["results"]] == [one["ruleId"] for one in run["results"]]
    assert [bool(one.get("suppressions")) for one in run["results"]] == [False, False, True]
