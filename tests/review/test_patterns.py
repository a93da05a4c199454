"""Each block of docs/patterns.md runs up, down and up again, and has the measurements that the page shows."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.lock_modes import CONFLICTS, MODES, blocks, shown_mode, strongest
from migrate_review.measure.session import reviewing
from migrate_review.revisions.tree import read_tree
from migrate_review.rules import squawk
from migrate_review.rules.acknowledgements import sort_out
from migrate_review.rules.blocking import long_works
from migrate_review.rules.case import Case, Run, scripts
from migrate_review.rules.findings import Severity
from migrate_review.rules.judge import judge
from tests.support.bystander import execute, query
from tests.support.checkout import ROOT
from tests.support.trees import write_tree

if TYPE_CHECKING:
    from localcloud.postgres import Database, Server
    from migrate_review.observation import Observation
    from migrate_review.rules.findings import Finding

PAGE = ROOT / "docs" / "patterns.md"

# All are measured in one review, which a worker makes once.
pytestmark = pytest.mark.xdist_group("patterns")

HEADER = '''"""{pattern}, {way}"""
from alembic import op
import sqlalchemy as sa

revision = {id!r}
down_revision = {parent!r}
branch_labels = None
depends_on = None

'''
BLOCK = re.compile(
    r"^## (?P<pattern>[^\n]+)\n|^### (?P<way>Risky|Safe)\n"
    r"|^```python\n(?P<code>.*?)^```\n(?:\nMeasured: (?P<measured>.*?)\n\n)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One block of the page: a revision, and the measurements that the page shows."""

    id: str
    parent: str | None
    pattern: str
    way: str
    code: str
    measured: str
    found: set[str]


def read_page() -> list[Block]:
    found: list[Block] = []
    pattern = way = ""
    for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8") + "\n"):
        if match["pattern"]:
            pattern, way = match["pattern"], ""
        elif match["way"]:
            way = match["way"].lower()
        else:
            same = [block for block in found if (block.pattern, block.way) == (pattern, way)]
            name = f"{pattern}_{way}_{len(same) + 1}".lower().replace(" ", "_") if way else "tables"
            parent = same[-1].id if same else found[0].id if found else None
            measurement, _, rules = " ".join((match["measured"] or "").split()).partition(" Found by the reviewer: ")
            named = set(re.findall(r"`([a-z-]+)`", rules))
            found.append(Block(name, parent, pattern, way, match["code"], measurement, named))
    return found


BLOCKS = read_page()
CHANGES = BLOCKS[1:]
SAMPLE = {"Backfill in batches", "Add an index"}


def sample(*ways: str) -> list[object]:
    """Return the blocks of these ways. `make test` tries those of some patterns."""
    return [
        pytest.param(block, id=block.id, marks=() if block.pattern in SAMPLE else pytest.mark.stress)
        for block in CHANGES
        if block.way in ways
    ]


@dataclass(frozen=True)
class Tried:
    """The outcome of a block of code."""

    observation: Observation
    findings: tuple[Finding, ...]


@pytest.fixture(scope="session")
def tried(
    postgres_server: Server, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, Tried]:
    """Every block of the page, as a branch of one tree, measured and judged."""
    backend = write_tree(tmp_path_factory.mktemp("patterns"), [])
    shutil.copy(ROOT / "back" / "backfill.py", backend)
    for block in BLOCKS:
        text = HEADER.format(pattern=block.pattern, way=block.way, id=block.id, parent=block.parent) + block.code
        (backend / "alembic" / "versions" / f"{block.id}.py").write_text(text)
    with reviewing(backend, on=postgres_server) as session:
        everything = pytestconfig.getoption("stress")
        blocks = [block for block in CHANGES if everything or block.pattern in SAMPLE]
        seen = {block.id: session.observe(block.id) for block in blocks}
    remarks = squawk.remarks(scripts(seen))
    revisions = {revision.id: revision for revision in read_tree(backend).revisions}
    return {
        name: Tried(
            observation,
            sort_out(
                revisions[name],
                judge(Case(observation, remarks[name, "upgrade"], revisions[name], remarks[name, "downgrade"])),
                complete=True,
            ).standing,
        )
        for name, observation in seen.items()
    }


def measured(observation: Observation) -> str:
    """Return the sentence that the page must contain for an observation."""
    modes: dict[str, list[str]] = {}
    for statement in observation.upgrade.statements:
        for lock in statement.locks:
            modes.setdefault(lock.table, []).append(lock.mode)
    waits = [waiting(table, strongest(of_table), observation) for table, of_table in modes.items()]
    return "; ".join(filter(None, waits)) or "nobody waits"


def waiting(table: str, mode: str, observation: Observation) -> str | None:
    """Return the sessions that a lock blocks and for how long; None if the lock blocks none."""
    run = Run("upgrade", observation.upgrade, (), observation.before, observation.after)
    works = list(long_works(run, observation.rows))
    rewritten = {table for work in works for table in work.rewritten}
    read = {table for work in works for table in work.held}
    who = f"{blocks([mode])} on {table} wait"
    if not blocks([mode]):
        waits = {
            "RowExclusiveLock": f"writes to the same rows of {table} wait",
            "ShareUpdateExclusiveLock": f"nobody waits for {table}",
        }
        if mode not in waits:
            return None
        who = waits[mode]
        read = {table for statement in observation.upgrade.statements for table in statement.scanned}
    work = "written anew" if table in rewritten else "read" if table in read else None
    return f"{who} ({shown_mode(mode)}) {f'while all its rows are {work}' if work else 'for a moment'}"


def rules(tried: Tried) -> set[str]:
    """Return the reviewer's findings without notes, which depend on the rows."""
    return {found.rule for found in tried.findings if found.severity is not Severity.NOTE}


@pytest.mark.parametrize("block", sample("risky", "safe"))
def test_a_block_goes_up_down_and_up_again_and_the_page_has_its_measurements(
    tried: dict[str, Tried], block: Block
) -> None:
    seen = tried[block.id].observation

    assert seen.rows["orders"] >= 300
    for way in (seen.upgrade, seen.downgrade, seen.upgrade_again):
        assert way is not None
        assert way.failure is None
    assert block.measured == f"{measured(seen)}."


@pytest.mark.parametrize("block", sample("risky"))
def test_the_reviewer_finds_what_the_page_says_on_each_risky_way(tried: dict[str, Tried], block: Block) -> None:
    assert block.found
    assert block.found <= rules(tried[block.id])


@pytest.mark.parametrize("block", sample("safe"))
def test_the_reviewer_is_silent_on_each_safe_way(tried: dict[str, Tried], block: Block) -> None:
    assert rules(tried[block.id]) == block.found == set()


def test_each_pattern_has_a_risky_and_a_safe_way() -> None:
    ways = {(block.pattern, block.way) for block in CHANGES}

    assert ways == {(block.pattern, way) for block in CHANGES for way in ("risky", "safe")}
    assert len({block.pattern for block in CHANGES}) == 10


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE free ADD COLUMN currency text NOT NULL DEFAULT 'EUR'",
        "ALTER TABLE free ALTER COLUMN short TYPE varchar(50)",
        "ALTER TABLE free ALTER COLUMN short TYPE text",
        "ALTER TABLE free ALTER COLUMN price TYPE numeric(9, 2)",
    ],
)
def test_the_changes_that_the_page_calls_catalog_only_are(database: Database, statement: str) -> None:
    look = "SELECT pg_relation_filenode('free'), seq_tup_read FROM pg_stat_user_tables WHERE relname = 'free'"
    execute(database, "CREATE TABLE free AS SELECT 'a'::varchar(20) AS short, 1::numeric(5, 2) AS price")
    before = query(database, look)

    query(database, f"{statement}; SELECT pg_stat_force_next_flush()")

    assert query(database, look) == before


def test_lock_modes_conflict_in_both_directions() -> None:
    assert set(CONFLICTS) == set(MODES)
    for mode, others in CONFLICTS.items():
        assert all(mode in CONFLICTS[other] for other in others)
