"""The reviewer's measurements match PostgreSQL's manual for each kind of statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from migrate_review.errors import ReviewError
from migrate_review.measure.catalog import differences
from migrate_review.measure.session import Session, reviewing
from tests.support.samples import chosen, sampled
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Server
    from migrate_review.observation import Observation

TABLES = sql(
    "CREATE TABLE parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label text NOT NULL)",
    "CREATE TABLE child (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent_id bigint, note text,"
    " amount integer NOT NULL DEFAULT 0, code varchar(20))",
    "INSERT INTO parent (label) SELECT n FROM generate_series(1, 60) AS n",
    "INSERT INTO child (parent_id, note, amount, code) SELECT n, 'note', n, 'c' || n FROM generate_series(1, 60) AS n",
)

ALONE = "with op.get_context().autocommit_block():\n    op.execute({!r})"

# A statement; its downgrade; what it locks, scans and rewrites.
KINDS = {
    "add_column": (
        "ALTER TABLE child ADD extra text", "ALTER TABLE child DROP extra", "child:AccessExclusiveLock", "", "",
    ),
    "constant_default": (
        "ALTER TABLE child ADD flag int NOT NULL DEFAULT 1", "ALTER TABLE child DROP flag",
        "child:AccessExclusiveLock", "", "",
    ),
    "volatile_default": (
        "ALTER TABLE child ADD token uuid DEFAULT gen_random_uuid()", "ALTER TABLE child DROP token",
        "child:AccessExclusiveLock", "child", "child",
    ),
    "change_type": (
        "ALTER TABLE child ALTER amount TYPE bigint", "ALTER TABLE child ALTER amount TYPE integer",
        "child:AccessExclusiveLock", "child", "child",
    ),
    "widen_varchar": (
        "ALTER TABLE child ALTER code TYPE varchar(40)", "ALTER TABLE child ALTER code TYPE varchar(20)",
        "child:AccessExclusiveLock", "", "",
    ),
    "set_not_null": (
        "ALTER TABLE child ALTER note SET NOT NULL", "ALTER TABLE child ALTER note DROP NOT NULL",
        "child:AccessExclusiveLock", "child", "",
    ),
    "check": (
        "ALTER TABLE child ADD CONSTRAINT positive CHECK (amount > -1)", "ALTER TABLE child DROP CONSTRAINT positive",
        "child:AccessExclusiveLock", "child", "",
    ),
    "check_not_valid": (
        "ALTER TABLE child ADD CONSTRAINT later CHECK (amount > -2) NOT VALID",
        "ALTER TABLE child DROP CONSTRAINT later",
        "child:AccessExclusiveLock", "", "",
    ),
    "validate_check": (
        "ALTER TABLE child VALIDATE CONSTRAINT later", "SELECT 1", "child:ShareUpdateExclusiveLock", "child", "",
    ),
    "foreign_key": (
        "ALTER TABLE child ADD CONSTRAINT fk FOREIGN KEY (parent_id) REFERENCES parent",
        "ALTER TABLE child DROP CONSTRAINT fk",
        "child:ShareRowExclusiveLock parent:ShareRowExclusiveLock", "child", "",
    ),
    "foreign_key_not_valid": (
        "ALTER TABLE child ADD CONSTRAINT fk2 FOREIGN KEY (parent_id) REFERENCES parent NOT VALID",
        "ALTER TABLE child DROP CONSTRAINT fk2",
        "child:ShareRowExclusiveLock parent:ShareRowExclusiveLock", "", "",
    ),
    "validate_foreign_key": (
        "ALTER TABLE child VALIDATE CONSTRAINT fk2", "SELECT 1",
        "child:ShareUpdateExclusiveLock parent:RowShareLock", "child", "",
    ),
    "index": ("CREATE INDEX ix ON child (note)", "DROP INDEX ix", "child:ShareLock", "child", ""),
    "unique": (
        "ALTER TABLE child ADD CONSTRAINT uq UNIQUE (id, note)", "ALTER TABLE child DROP CONSTRAINT uq",
        "child:AccessExclusiveLock", "child", "",
    ),
    "rename_column": (
        "ALTER TABLE child RENAME note TO remark", "ALTER TABLE child RENAME remark TO note",
        "child:AccessExclusiveLock", "", "",
    ),
    "rename_table": (
        "ALTER TABLE child RENAME TO kid", "ALTER TABLE kid RENAME TO child", "child:AccessExclusiveLock", "", "",
    ),
    "rename_back": (
        "ALTER TABLE kid RENAME TO child", "ALTER TABLE child RENAME TO kid", "kid:AccessExclusiveLock", "", "",
    ),
    "update_all": (
        "UPDATE child SET amount = amount + 0", "SELECT 1", "child:RowExclusiveLock", "child", "",
    ),
    "update_one": ("UPDATE child SET amount = amount + 0 WHERE id = 7", "SELECT 1", "child:RowExclusiveLock", "", ""),
    "trigger": (
        "CREATE TRIGGER same BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DROP TRIGGER same ON child", "child:ShareRowExclusiveLock", "", "",
    ),
    "drop_column": (
        "ALTER TABLE child DROP code", "ALTER TABLE child ADD code varchar(20)", "child:AccessExclusiveLock", "", "",
    ),
    "create_table": (
        "CREATE TABLE other (id int PRIMARY KEY, parent_id bigint REFERENCES parent)", "DROP TABLE other",
        "parent:ShareRowExclusiveLock", "", "",
    ),
    "drop_table": (
        "DROP TABLE child", "CREATE TABLE child (id bigint)",
        "child:AccessExclusiveLock parent:AccessExclusiveLock", "", "",
    ),
}  # fmt: skip

KINDS_ALONE = {
    "concurrently": (
        "CREATE INDEX CONCURRENTLY ix_alone ON parent (label)", "DROP INDEX CONCURRENTLY ix_alone",
        "parent:ShareUpdateExclusiveLock", "parent", "",
    ),
    "drop_concurrently": (
        "DROP INDEX CONCURRENTLY ix_alone", "CREATE INDEX CONCURRENTLY ix_alone ON parent (label)",
        "parent:ShareUpdateExclusiveLock", "", "",
    ),
    "alter_in_autocommit": (
        "ALTER TABLE parent ADD more int", "ALTER TABLE parent DROP more", "parent:AccessExclusiveLock", "", "",
    ),
}  # fmt: skip


# Each lock, scan and rewrite; in a transaction and outside; then rows read in each way.
SAMPLE = {
    "add_column", "volatile_default", "check", "check_not_valid", "validate_check", "foreign_key", "index",
    "rename_column", "update_one", "trigger", "drop_column", "create_table", "drop_table", "concurrently",
    "alter_in_autocommit",
    "range_of_keys", "one_key", "looked_up", "key_on_index",
}  # fmt: skip


def observed(session: Session) -> dict[str, Observation]:
    return {revision: session.observe(revision) for revision in session.revisions}


@pytest.fixture(scope="module")
def kinds(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Server, pytestconfig: pytest.Config
) -> dict[str, Observation]:
    """Each kind of statement, one revision after the other, on the same tables."""
    in_one, alone = (chosen(each, SAMPLE, pytestconfig) for each in (KINDS, KINDS_ALONE))
    revisions = [
        Rev("tables", TABLES, sql("DROP TABLE child", "DROP TABLE parent")),
        *(Rev(name, sql(up), sql(down)) for name, (up, down, *_) in in_one.items()),
        *(Rev(name, ALONE.format(up), ALONE.format(down)) for name, (up, down, *_) in alone.items()),
    ]
    folder = write_tree(tmp_path_factory.mktemp("kinds"), revisions)
    with reviewing(folder, on=postgres_server, rows=60) as session:
        return observed(session)


@pytest.mark.xdist_group("review_kinds")
@pytest.mark.parametrize("name", sampled([*KINDS, *KINDS_ALONE], SAMPLE))
def test_a_statement_is_seen_to_lock_scan_and_rewrite_what_the_manual_says(
    name: str, kinds: dict[str, Observation]
) -> None:
    _, _, locks, scanned, rewritten = (KINDS | KINDS_ALONE)[name]
    seen = kinds[name].upgrade
    assert (seen.failure, len(seen.statements)) == (None, 1)
    [statement] = seen.statements
    assert sorted(f"{lock.table}:{lock.mode}" for lock in statement.locks) == sorted(locks.split())
    assert sorted(statement.scanned) == scanned.split()
    assert list(statement.rewritten) == rewritten.split()
    assert statement.in_transaction is (name in KINDS)


@pytest.mark.xdist_group("review_kinds")
def test_a_revision_that_can_be_taken_back_leaves_schema_and_rows_as_they_were(kinds: dict[str, Observation]) -> None:
    lossy = {"validate_check", "validate_foreign_key", "drop_column", "drop_table"}
    for name in kinds.keys() - lossy - {"tables"}:
        seen = kinds[name]
        assert seen.downgrade is not None
        assert seen.restored is not None
        assert (seen.downgrade.failure, differences(seen.before, seen.restored), seen.changes) == (None, (), ()), name
        assert seen.upgrade_again is not None
        assert seen.upgrade_again.failure is None
        assert seen.rows["parent"] == 60


@pytest.mark.xdist_group("review_kinds")
def test_a_column_and_a_table_that_come_back_empty_are_found_with_their_rows(kinds: dict[str, Observation]) -> None:
    [column] = kinds["drop_column"].changes
    assert column.table == "child"
    assert 0 < column.changed["code"] <= 60
    assert "code '" in column.example
    assert column.example.endswith(" became NULL")
    seen = kinds["drop_table"]
    assert seen.restored is not None
    [table] = seen.changes
    assert (table.table, table.rows, table.lost) == ("child", 60, 60)
    assert any(line.startswith("column child.parent_id is gone") for line in differences(seen.before, seen.restored))


# A statement on 60 rows; the rows that it is seen to read of tables of which it reads more, the more they have; and the
# rows that it changes.
COUNTED = {
    "range_of_keys": ("UPDATE owner SET name = name WHERE id BETWEEN 1 AND 100000", {"owner": 60}, {"owner": 60}),
    "one_key": ("UPDATE owner SET name = name WHERE id = 7", {}, {"owner": 1}),
    "listed_keys": (f"SELECT FROM owner WHERE id IN ({', '.join(map(str, range(1, 31)))})", {}, {}),
    "range_of_index": ("SELECT count(note) FROM pet WHERE owner_id > 0", {"pet": 60}, {}),
    "looked_up": ("UPDATE pet SET note = note FROM owner WHERE owner.id = owner_id AND pet.id < 9", {}, {"pet": 8}),
    "all_null": ("UPDATE pet SET owner_id = NULL WHERE id > 0", {"pet": 60}, {"pet": 60}),
    # The plan for its check looks into an index in which nothing but NULL is.
    "key_on_index": (
        (
            "DO $$ BEGIN SET LOCAL enable_seqscan = off;"
            " ALTER TABLE toy ADD CONSTRAINT fk2 FOREIGN KEY (owner_id) REFERENCES owner; END $$"
        ),
        {"toy": 60}, {},
    ),
    "key_on_new_column": ("ALTER TABLE pet ADD COLUMN sitter bigint REFERENCES owner", {}, {}),
    "emptied_in_block": ("DO $$ BEGIN TRUNCATE pet; END $$", {}, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def counted(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Server, pytestconfig: pytest.Config
) -> dict[str, Observation]:
    """Each statement alone. The tables are the same for each."""
    tables = sql(
        "CREATE TABLE owner (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE pet (id bigserial PRIMARY KEY, owner_id bigint REFERENCES owner ON DELETE CASCADE, note text)",
        "CREATE INDEX ix_pet ON pet (owner_id)",
        "CREATE TABLE toy (id bigserial PRIMARY KEY, owner_id bigint CHECK (owner_id IS NULL))",
        "CREATE INDEX ix_toy ON toy (owner_id)",
        "INSERT INTO owner SELECT n, 'owner' FROM generate_series(1, 60) AS n",
        "INSERT INTO pet (owner_id) SELECT n FROM generate_series(1, 60) AS n",
    )
    each = chosen(COUNTED, SAMPLE, pytestconfig)
    revisions = [Rev("tables", tables, sql("DROP TABLE toy, pet, owner"))]
    revisions += [Rev(name, sql(statement), "pass") for name, (statement, *_) in each.items()]
    with reviewing(write_tree(tmp_path_factory.mktemp("counted"), revisions), on=postgres_server, rows=60) as session:
        return observed(session)


@pytest.mark.xdist_group("review_counted")
@pytest.mark.parametrize("name", sampled(COUNTED, SAMPLE))
def test_rows_that_a_statement_reads_and_changes_are_counted_with_any_access_path(
    name: str, counted: dict[str, Observation]
) -> None:
    _, read, changed = COUNTED[name]
    [statement] = counted[name].upgrade.statements
    assert ({table: statement.read[table] for table in statement.scanned}, statement.changed) == (read, changed)
    assert statement.rewritten == ()


def review(folder: Path, server: Server, revisions: list[Rev], env_py: str = ENV_PY) -> dict[str, Observation]:
    with reviewing(write_tree(folder / "backend", revisions, env_py=env_py), on=server, rows=60) as session:
        return observed(session)


PEOPLE = Rev(
    "people",
    sql("CREATE TABLE people (id bigserial PRIMARY KEY, email text NOT NULL, name varchar(30), born timestamptz)"),
    sql("DROP TABLE people"),
)


@pytest.mark.stress
def test_rows_and_values_that_do_not_survive_up_and_down_are_found(tmp_path: Path, postgres_server: Server) -> None:
    seen = review(
        tmp_path,
        postgres_server,
        [
            PEOPLE,
            Rev(
                "mapped",
                sql("UPDATE people SET name = 'lifetime' WHERE name = 'gold'"),
                sql("UPDATE people SET name = 'plain' WHERE name = 'lifetime'"),
            ),
            Rev("lowered", sql("UPDATE people SET email = lower(email)")),
            Rev("cut", "pass", sql("ALTER TABLE people ALTER name TYPE varchar(5) USING left(name, 5)")),
            Rev("nulled", "pass", sql("UPDATE people SET born = NULL")),
            Rev("deleted", sql("DELETE FROM people WHERE id % 2 = 0")),
            Rev("inserted", sql("INSERT INTO people (email) VALUES ('new')")),
        ],
    )
    [lowered], [cut], [nulled], [deleted], [mapped], [inserted] = (
        seen[name].changes for name in ("lowered", "cut", "nulled", "deleted", "mapped", "inserted")
    )
    assert mapped.example.endswith("name 'gold' became 'plain'")
    assert lowered.changed.keys() == {"email"}
    assert " became '" in lowered.example
    assert cut.changed.keys() == {"name"}
    assert nulled.changed.keys() == {"born"}
    assert nulled.example.endswith("became NULL")
    assert (deleted.lost, deleted.added) == (30, 0)
    assert (inserted.lost, inserted.added) == (0, 1)


@pytest.mark.stress
def test_a_revision_that_refuses_rows_the_schema_allows_is_measured_with_rows_that_it_takes(
    tmp_path: Path, postgres_server: Server
) -> None:
    seen = review(
        tmp_path,
        postgres_server,
        [
            PEOPLE,
            Rev(
                "strict",
                sql(
                    "ALTER TABLE people ALTER name SET NOT NULL",
                    "CREATE UNIQUE INDEX only_one ON people (lower(email))",
                    "ALTER TABLE people ADD CHECK (born > '2000-01-01'), ALTER email TYPE varchar(12)",
                ),
                sql(
                    "ALTER TABLE people DROP CONSTRAINT people_born_check, ALTER email TYPE text",
                    "DROP INDEX only_one",
                    "ALTER TABLE people ALTER name DROP NOT NULL",
                ),
            ),
        ],
    )["strict"]
    assert seen.refused is not None
    assert seen.refused.sqlstate == "23502"
    assert seen.refused.failed_sql == "ALTER TABLE people ALTER name SET NOT NULL"
    assert seen.refused.failure is not None
    assert seen.refused.failure.startswith("NotNullViolation: ")
    assert seen.upgrade.failure is None
    assert seen.restored is not None
    assert seen.rows == {"people": 60}
    assert (differences(seen.before, seen.restored), seen.changes) == ((), ())


@pytest.mark.stress
def test_one_bad_revision_hides_no_other(tmp_path: Path, postgres_server: Server) -> None:
    seen = review(
        tmp_path,
        postgres_server,
        [
            PEOPLE,
            Rev("no_way_back", sql("ALTER TABLE people ADD a int"), "raise NotImplementedError('no')"),
            Rev("wrong_way_back", sql("ALTER TABLE people ADD b int"), sql("ALTER TABLE people DROP c")),
            Rev("half", sql("ALTER TABLE people ADD d int"), "pass"),
            Rev("exits", "sys.exit('enough')", "pass"),
        ],
    )
    for name in ("no_way_back", "wrong_way_back", "half"):
        assert (seen[name].upgrade.failure, len(seen[name].upgrade.statements)) == (None, 1)
    no_way_back, wrong_way_back, half = (seen[name].downgrade for name in ("no_way_back", "wrong_way_back", "half"))
    assert no_way_back is not None
    assert no_way_back.failure == "NotImplementedError: no"
    assert wrong_way_back is not None
    assert wrong_way_back.sqlstate == "42703"
    assert wrong_way_back.failed_sql == "ALTER TABLE people DROP c"
    assert half is not None
    assert (half.failure, half.empty) == (None, True)
    assert seen["half"].restored is not None
    assert differences(seen["half"].before, seen["half"].restored) == ("column people.d is left over",)
    assert seen["half"].upgrade_again is not None
    assert seen["half"].upgrade_again.sqlstate == "42701"
    assert seen["exits"].upgrade.failure == "SystemExit: enough"


@pytest.mark.stress
def test_a_revision_that_hangs_is_ended_and_the_next_one_observed(
    tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    revisions = [PEOPLE, Rev("hangs", "time.sleep(600)"), Rev("beside", sql("SELECT 1"), down="people")]
    with reviewing(write_tree(tmp_path / "backend", revisions), on=postgres_server, rows=5) as session:
        assert session.observe("people").upgrade.failure is None
        with monkeypatch.context() as patch:
            patch.setattr("migrate_review.measure.connections.PASS_TIMEOUT_S", 2)
            assert session.observe("hangs").upgrade.failure == "it did not end within 2 s and was killed"
        assert session.observe("beside").upgrade.failure is None


@pytest.mark.stress
def test_an_unreachable_state_has_a_reason(tmp_path: Path, postgres_server: Server) -> None:
    seen = review(tmp_path, postgres_server, [PEOPLE, Rev("dies", "os._exit(3)"), Rev("after", sql("SELECT 1"))])
    assert seen["dies"].upgrade.failure == "the backend's process ended with exit code 3"
    assert seen["after"].upgrade.failure is not None
    assert seen["after"].upgrade.failure.startswith("the earlier revision dies does not run: ")
    assert seen["after"].unmeasured == (seen["after"].upgrade.failure,)


def test_branches_merges_and_dependencies_are_observed_on_all_that_they_stand_on(
    tmp_path: Path, postgres_server: Server
) -> None:
    revisions = [
        Rev("root", sql("CREATE TABLE a (id int PRIMARY KEY)"), sql("DROP TABLE a")),
        Rev("left", sql("ALTER TABLE a ADD l int"), sql("ALTER TABLE a DROP l"), down="root"),
        Rev("right", sql("ALTER TABLE a ADD r int"), sql("ALTER TABLE a DROP r"), down="root"),
        Rev("merged", down=("left", "right")),
        Rev("apart", sql("ALTER TABLE a ADD s int"), sql("ALTER TABLE a DROP s"), down=None, depends_on="left"),
    ]
    with reviewing(write_tree(tmp_path / "backend", revisions), on=postgres_server, rows=5) as session:
        for order in (["apart", "merged", "right"], list(session.revisions)):
            for revision in order:
                seen = session.observe(revision)
                assert seen.upgrade.failure is None, revision
                assert seen.upgrade_again is not None, revision
                assert seen.upgrade_again.failure is None, revision
        assert session.heads == ("apart", "merged")


def test_models_are_compared_with_head_in_any_time_zone(tmp_path: Path, postgres_server: Server) -> None:
    models = (
        "from sqlalchemy import Column, Integer, MetaData, String, Table\n"
        "target_metadata = MetaData()\n"
        "Table('people', target_metadata, Column('id', Integer, primary_key=True), Column('nick', String))\n"
    )
    tree = write_tree(
        tmp_path / "backend",
        [Rev("people", sql("CREATE TABLE people (id int PRIMARY KEY, age int)"))],
        env_py=ENV_PY.replace("target_metadata = None\n", models).replace(
            "poolclass=", "connect_args={'options': '-c timezone=Asia/Tokyo -c datestyle=German'}, poolclass="
        ),
    )
    with reviewing(tree, on=postgres_server) as session:
        assert session.drift() == ("add_column people.nick", "remove_column people.age")


@pytest.mark.stress
@pytest.mark.parametrize(
    "broken, expected",
    [
        ("import nowhere_to_be_found", "alembic/versions/broken_.py:1: ModuleNotFoundError: No module named"),
        ("revision = (", "alembic/versions/broken_.py:1: SyntaxError: "),
    ],
)
def test_a_revision_that_cannot_be_imported_ends_the_review_with_its_file_and_line(
    tmp_path: Path, postgres_server: Server, broken: str, expected: str
) -> None:
    folder = write_tree(tmp_path / "backend", [PEOPLE])
    (folder / "alembic" / "versions" / "broken_.py").write_text(broken)
    with pytest.raises(ReviewError) as raised, reviewing(folder, on=postgres_server):
        pass
    assert str(raised.value).startswith(expected)


def test_an_env_py_that_connects_elsewhere_is_refused_before_a_revision_runs(
    tmp_path: Path, postgres_server: Server
) -> None:
    elsewhere = postgres_server.database("postgres").url
    env_py = ENV_PY.replace('create_engine(os.environ["DATABASE_URL"]', f"create_engine({elsewhere!r}")
    with pytest.raises(
        ReviewError, match=r"^env\.py connected to database 'postgres', not to that of the review; no revision"
    ):
        review(tmp_path, postgres_server, [PEOPLE], env_py)


@pytest.mark.stress
@pytest.mark.parametrize(
    "configured, message",
    [
        (
            "upgrade_token='engine1_upgrades', connection=",
            "env.py is of Alembic's multidb template, for several databases",
        ),
        ("connection=None and ", "env.py gave context.configure() no connection, though it does not run offline"),
    ],
)
def test_an_env_py_that_the_hook_refuses_ends_the_review(
    tmp_path: Path, postgres_server: Server, configured: str, message: str
) -> None:
    env_py = ENV_PY.replace("context.configure(connection=", f"context.configure({configured}")
    assert env_py != ENV_PY
    with pytest.raises(ReviewError) as raised:
        review(tmp_path, postgres_server, [PEOPLE], env_py)
    assert str(raised.value).startswith(message)
