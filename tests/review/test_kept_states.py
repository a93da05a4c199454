"""A second review starts at the state that the first one kept, and fills the tables that a revision touches."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from localcloud import postgres
from migrate_review.measure import kept, position
from migrate_review.measure import server as servers
from migrate_review.measure.session import reviewing
from tests.support.checkout import ROOT
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Server
    from migrate_review.observation import Observation

pytestmark = pytest.mark.xdist_group("review-kept")

TABLES = [f"t{number}" for number in range(24)]
CREATE = [
    f"CREATE TABLE {name} (id bigint CONSTRAINT pk_{name} PRIMARY KEY, note text"
    + (f", up bigint CONSTRAINT fk_{name} REFERENCES t{place // 2} (id))" if place else ")")
    for place, name in enumerate(TABLES)
]
MANY = Rev("many", sql(*CREATE), sql(*(f"DROP TABLE {name}" for name in reversed(TABLES))))
ADDS = Rev("adds", sql("ALTER TABLE t9 ADD more text"), sql("ALTER TABLE t9 DROP more"))


@pytest.fixture(scope="module")
def server(shared_run: Path) -> Iterator[Server]:
    """Its own server, because all reviews on a server share the list of kept states."""
    directory = shared_run / "kept-states"
    started = postgres.start(ROOT, directory, durable=False)
    yield started
    postgres.remove(ROOT, directory)


@pytest.fixture(scope="module", autouse=True)
def _always_worth_it() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position, "_WORTH_KEEPING_S", 0.0)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, server: Server) -> tuple[Path, Observation, list[str]]:
    """A tree, the measurements of its first review, and the steps before them."""
    folder = write_tree(tmp_path_factory.mktemp("first"), [MANY, ADDS])
    return folder, *observed(folder, server)


def observed(folder: Path, server: Server, revision: str = "adds", *, rows: int = 9) -> tuple[Observation, list[str]]:
    """Return a revision's measurements, and the steps before them."""
    steps: list[str] = []
    with reviewing(folder, on=server, rows=rows, progress=steps.append) as opened:
        return opened.observe(revision), steps


def applied(steps: list[str]) -> list[str]:
    return [step for step in steps if step.startswith("applying")]


def test_the_revisions_before_are_not_applied_again(first: tuple[Path, Observation, list[str]], server: Server) -> None:
    folder, seen_first, steps = first
    assert applied(steps) == ["applying 1 earlier revision"]
    second, steps = observed(folder, server)
    assert applied(steps) == []
    for seen in (seen_first, second):
        assert seen.upgrade.failure is None
        assert [lock.table for statement in seen.upgrade.statements for lock in statement.locks] == ["t9"]
        assert {name for name, count in seen.rows.items() if count} == {"t9", "t4", "t2", "t1", "t0"}
        assert seen.unfilled == {}


@pytest.mark.stress
def test_the_rows_are_not_made_again_unless_a_revision_changed(
    first: tuple[Path, Observation, list[str]], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen, _ = first
    made: list[str] = []
    monkeypatch.setattr(servers, "recreate", _noting(servers.recreate, made))
    again, _ = observed(folder, server)
    assert [name.count("_") for name in made if name.startswith("kept_")] == [2], "one copy, with rows"
    assert again.rows == seen.rows
    other, _ = observed(folder, server, rows=11)
    assert other.rows["t9"] == 11


def _noting(recreate: Callable[..., None], made: list[str]) -> Callable[..., None]:
    """Note from which database each one is made."""

    def noting(on: Server, name: str, template: str = "template0") -> None:
        made.append(template)
        recreate(on, name, template)

    return noting


def test_a_change_of_the_revision_itself_does_not_matter_and_one_before_it_does(tmp_path: Path, server: Server) -> None:
    folder = write_tree(tmp_path / "backend", [MANY, ADDS])
    observed(folder, server)
    own, before = (folder / "alembic" / "versions" / f"{name}_.py" for name in ("adds", "many"))
    own.write_text(own.read_text().replace("more text", "more bigint"))
    seen, steps = observed(folder, server)
    assert applied(steps) == []
    assert "more bigint" in seen.upgrade.statements[0].sql
    before.write_text(before.read_text().replace("note text", "note varchar(9)"))
    seen, steps = observed(folder, server)
    assert len(applied(steps)) == 1
    assert seen.before.tables[0].columns[1].type == "character varying(9)"


@pytest.mark.stress
def test_one_more_revision_before_it_is_applied_on_top(tmp_path: Path, server: Server) -> None:
    folder = write_tree(tmp_path / "backend", [MANY, ADDS, Rev("next", sql("ALTER TABLE t3 ADD x int"), "pass")])
    observed(folder, server)
    seen, steps = observed(folder, server, "next")
    assert applied(steps) == ["applying 1 earlier revision"]
    assert seen.upgrade.failure is None
    assert any(column.name == "more" for table in seen.before.tables for column in table.columns)


@pytest.mark.stress
def test_imports_of_a_revision_from_the_backend_count(tmp_path: Path, server: Server) -> None:
    folder = write_tree(tmp_path / "backend", [MANY, ADDS])
    (folder / "helpers.py").write_text("NOTE = 'text'\n")
    before = folder / "alembic" / "versions" / "many_.py"
    text = before.read_text().replace("import sqlalchemy as sa\n", "import sqlalchemy as sa\nimport helpers\n")
    before.write_text(
        text.replace("def upgrade():\n", "def upgrade():\n    op.execute('SELECT ' + repr(helpers.NOTE))\n")
    )
    observed(folder, server)
    _, steps = observed(folder, server)
    assert applied(steps) == []
    (folder / "helpers.py").write_text("NOTE = 'other'\n")
    _, steps = observed(folder, server)
    assert len(applied(steps)) == 1


@pytest.mark.stress
def test_the_oldest_states_are_dropped(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 1)
    for number in range(2):
        first = Rev("first", sql(f"CREATE TABLE only{number} (id bigint PRIMARY KEY)"), sql(f"DROP TABLE only{number}"))
        adds = Rev("adds", sql(f"ALTER TABLE only{number} ADD a int"), sql(f"ALTER TABLE only{number} DROP a"))
        folder = write_tree(tmp_path / f"backend{number}", [first, adds])
        observed(folder, server)
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_database WHERE starts_with(datname, 'kept_')")
        assert cursor.fetchone() == (1,)
    assert applied(observed(folder, server)[1]) == [], "the newest is there"


IN_A_LOOP = """
for number in range(20, 22):
    op.execute("UPDATE t" + str(number) + " SET note = 'x' WHERE note IS NULL")
"""


@pytest.mark.stress
def test_a_table_that_no_text_names_gets_rows_once_it_was_touched(tmp_path: Path, server: Server) -> None:
    folder = write_tree(tmp_path / "backend", [MANY, Rev("loop", IN_A_LOOP)])
    seen, _ = observed(folder, server, "loop")
    assert {name for name, count in seen.rows.items() if count} >= {"t20", "t21"}
    assert seen.unfilled == {}


@pytest.mark.stress
def test_a_partition_and_a_view_stand_for_the_tables_that_hold_the_rows(tmp_path: Path, server: Server) -> None:
    more = [
        "CREATE TABLE logs (id bigint, at date) PARTITION BY RANGE (at)",
        "CREATE TABLE logs_2026 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        "CREATE VIEW shown AS SELECT note FROM t17",
    ]
    first = Rev("many", sql(*CREATE, *more), "pass")
    uses = Rev("uses", sql("ALTER TABLE logs_2026 ADD CONSTRAINT ck CHECK (id > -99)", "SELECT * FROM shown"), "pass")
    seen, _ = observed(write_tree(tmp_path / "backend", [first, uses]), server, "uses")
    assert seen.rows["logs_2026"] == 9
    assert seen.rows["t17"] == 9
    assert seen.rows["t20"] == 0
