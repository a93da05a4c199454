"""An unmeasured part never passes: a finding has its reason, and the other parts are measured."""

from __future__ import annotations

import json
import secrets
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from localcloud import postgres
from migrate_cli import stages
from migrate_cli.errors import UsageError
from migrate_review.errors import EnvPyError, ReviewError
from migrate_review.measure import server
from migrate_review.measure.session import Where, reviewing
from migrate_review.review import review
from migrate_review.revisions.tree import read_tree
from tests.support.checkout import ROOT
from tests.support.trees import ALEMBIC_INI, ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Server
    from migrate_review.review import Review, Reviewed

pytestmark = pytest.mark.xdist_group("review-unmeasured")

PEOPLE = Rev(
    "people",
    sql("CREATE TABLE people (id bigint CONSTRAINT pk_people PRIMARY KEY, email text NOT NULL, CONSTRAINT uq_mail"
        " UNIQUE (email))"),
    sql("DROP TABLE people"),
)  # fmt: skip


def reviewed(
    folder: Path, on: Server, *, baseline: Path | None = None, allow_unmeasured: bool = False
) -> tuple[Review, dict[str, Reviewed]]:
    """Review all revisions of a backend."""
    tree = read_tree(folder)
    session = partial(reviewing, folder, on=on, where=Where(baseline=baseline), rows=30)
    result = review(tree, tree.revisions, session, allow_unmeasured=allow_unmeasured)
    return result, {one.revision.id: one for one in result.revisions}


def rules(one: Reviewed) -> dict[str, str]:
    """The findings on a revision: each rule with its severity."""
    return {found.rule: found.severity.value for found in one.result.standing}


def messages(one: Reviewed) -> str:
    return " ".join(found.message for found in one.result.standing if found.rule == "not-measured")


def test_a_missing_extension_leaves_it_and_all_after_it_unmeasured_with_what_squawk_says(
    tmp_path: Path, postgres_server: Server
) -> None:
    revisions = [
        Rev("vectors", sql("CREATE EXTENSION vector", "CREATE TABLE docs (id bigint PRIMARY KEY, v vector(3))")),
        Rev("index", sql("CREATE INDEX ix_docs ON docs (id)"), sql("DROP INDEX ix_docs")),
    ]
    folder = write_tree(tmp_path / "backend", revisions)
    result, by_id = reviewed(folder, postgres_server)
    assert not result.passed
    assert rules(by_id["vectors"])["not-measured"] == "error"
    assert "no extension vector" in messages(by_id["vectors"])
    assert "--database-url" in messages(by_id["vectors"])
    assert rules(by_id["index"]) == {"not-measured": "error", "require-concurrent-index-creation": "error"}
    assert "the earlier revision vectors does not run: the server has no" in messages(by_id["index"])
    assert "upgrade-fails" not in rules(by_id["vectors"])


def test_unmeasured_revisions_pass_only_with_allow_unmeasured(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path / "backend", [Rev("cron", sql("CREATE EXTENSION pg_cron"))])
    allowed, by_id = reviewed(folder, postgres_server, allow_unmeasured=True)
    assert rules(by_id["cron"])["not-measured"] == "warning"
    assert "not-measured" not in {found.rule for found in allowed.findings if found.severity.value == "error"}


EXISTING = [
    Rev("begins", "pass"),
    Rev("adds", sql("ALTER TABLE accounts ADD COLUMN nick text"), sql("ALTER TABLE accounts DROP COLUMN nick")),
    Rev("scans", sql("ALTER TABLE accounts ADD CONSTRAINT ck CHECK (id > 0)"),
        sql("ALTER TABLE accounts DROP CONSTRAINT ck")),
]  # fmt: skip
DUMP = r"""
\restrict key
SELECT pg_catalog.set_config('search_path', '', false);
CREATE TABLE public.accounts (id bigint NOT NULL CONSTRAINT pk_accounts PRIMARY KEY);
COPY public.accounts (id) FROM stdin;
1
2
\.
{more}
\unrestrict key
"""


def test_a_history_that_begins_with_existing_tables_needs_a_baseline(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path / "backend", EXISTING)
    result, by_id = reviewed(folder, postgres_server)
    assert not result.passed
    assert "the relation accounts is missing, and no earlier revision creates it" in messages(by_id["adds"])
    assert "--baseline" in messages(by_id["adds"])
    assert "constraint-missing-not-valid" in rules(by_id["scans"]), "squawk's word stands"


@pytest.mark.stress
def test_with_a_baseline_beside_env_py_such_a_history_is_measured(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path / "backend", EXISTING)
    (folder / "baseline.sql").write_text(DUMP.format(more=""))
    _, by_id = reviewed(folder, postgres_server)
    assert rules(by_id["adds"]) == {}
    assert rules(by_id["scans"])["constraint-missing-not-valid"] == "error"
    seen = by_id["scans"].observation
    assert seen is not None
    assert seen.rows["accounts"] == 30


@pytest.mark.stress
def test_a_baseline_may_be_of_a_later_revision(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path / "backend", EXISTING)
    more = (
        "ALTER TABLE public.accounts ADD COLUMN nick text; CREATE TABLE public.alembic_version (version_num"
        " varchar(32) PRIMARY KEY); INSERT INTO public.alembic_version VALUES ('adds');"
    )
    dump = tmp_path / "dump.sql"
    dump.write_text(DUMP.format(more=more))
    _, by_id = reviewed(folder, postgres_server, baseline=dump)
    assert "the baseline already contains it" in messages(by_id["adds"])
    assert "not-measured" not in rules(by_id["scans"])
    assert rules(by_id["scans"])["constraint-missing-not-valid"] == "error"


def test_a_baseline_that_the_server_refuses_ends_the_review(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path / "backend", EXISTING)
    (folder / "baseline.sql").write_text("ALTER TABLE nowhere OWNER TO nobody_at_all;")
    with pytest.raises(ReviewError, match=r"baseline\.sql cannot be loaded: relation \"nowhere\" .* --no-owner"):
        reviewed(folder, postgres_server)


@pytest.mark.stress
def test_a_name_that_is_wrong_in_a_history_with_tables_of_its_own_is_a_failure(
    tmp_path: Path, postgres_server: Server
) -> None:
    folder = write_tree(tmp_path / "backend", [PEOPLE, Rev("typo", sql("ALTER TABLE peple ADD COLUMN a int"))])
    _, by_id = reviewed(folder, postgres_server)
    assert rules(by_id["typo"])["upgrade-fails"] == "error"
    assert "not-measured" not in rules(by_id["typo"])


@pytest.mark.stress
def test_a_revision_that_fails_on_the_rows_is_measured_with_fewer(tmp_path: Path, postgres_server: Server) -> None:
    revisions = [PEOPLE, Rev("same", sql("UPDATE people SET email = 'x'"), sql("SELECT 1"))]
    _, by_id = reviewed(write_tree(tmp_path / "backend", revisions), postgres_server)
    seen = by_id["same"].observation
    assert seen is not None
    assert (seen.upgrade.failure, seen.rows["people"], seen.unmeasured) == (None, 1, ())
    assert rules(by_id["same"])["upgrade-depends-on-data"] == "warning"


def test_a_revision_that_fails_on_any_row_is_measured_without_rows_and_says_so(
    tmp_path: Path, postgres_server: Server
) -> None:
    revisions = [
        PEOPLE,
        Rev("none", sql("UPDATE people SET email = NULL", "CREATE INDEX ix ON people (id)"), sql("DROP INDEX ix")),
    ]
    result, by_id = reviewed(write_tree(tmp_path / "backend", revisions), postgres_server)
    found = rules(by_id["none"])
    assert found["not-measured"] == "error"
    assert found["upgrade-depends-on-data"] == "warning"
    assert found["require-concurrent-index-creation"] == "error", "squawk's word stands where nothing was measured"
    seen = by_id["none"].observation
    assert seen is not None
    assert (seen.upgrade.failure, set(seen.rows.values())) == (None, {0})
    assert not result.passed


NOT_FILLED = Rev(
    "never",
    sql("CREATE TABLE never (id bigint CONSTRAINT pk PRIMARY KEY, CONSTRAINT ck CHECK (id <> id))",
        "CREATE TABLE other (id bigint CONSTRAINT pk_other PRIMARY KEY)"),
    sql("DROP TABLE never", "DROP TABLE other"),
)  # fmt: skip


@pytest.mark.stress
def test_a_revision_that_breaks_the_reviews_own_work_is_reported_and_the_others_are_reviewed(
    tmp_path: Path, postgres_server: Server
) -> None:
    refuse = "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no DDL'; END $$"
    secure = ["ALTER TABLE people ENABLE ROW LEVEL SECURITY", "CREATE POLICY everyone ON people USING (true)"]
    whole = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {}', current_database()); END $$"
    revisions = [
        PEOPLE,
        Rev(
            "no_ddl",
            sql(*secure, refuse, "CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION no()"),
            sql("DROP EVENT TRIGGER no", "DROP FUNCTION no()"),
            down="people",
        ),
        Rev(
            "no_schema",
            sql(whole.format("SET search_path = app")),
            sql(whole.format("RESET search_path")),
            down="people",
        ),
        Rev("index", sql("CREATE INDEX ix_people ON people (email, id)"), sql("DROP INDEX ix_people"), down="people"),
        Rev("after_no_schema", sql("CREATE TABLE public.more (id bigint PRIMARY KEY)"), down="no_schema"),
    ]
    _, by_id = reviewed(write_tree(tmp_path / "backend", revisions), postgres_server)

    assert rules(by_id["no_ddl"])["not-measured"] == "error"
    assert "a statement of the review itself failed with it: no DDL" in messages(by_id["no_ddl"])
    assert rules(by_id["no_schema"])["downgrade-fails"] == "error"
    assert rules(by_id["no_schema"])["settings-changed"] == "warning"
    assert rules(by_id["after_no_schema"])["not-measured"] == "error"
    assert "env.py no longer runs after the revisions before this one" in messages(by_id["after_no_schema"])
    assert rules(by_id["index"])["require-concurrent-index-creation"] == "error"


@pytest.mark.parametrize(
    "table, found", [("never", {"not-measured"}), pytest.param("other", set(), marks=pytest.mark.stress)]
)
def test_a_table_that_stayed_empty_counts_where_the_revision_touches_it(
    tmp_path: Path, postgres_server: Server, table: str, found: set[str]
) -> None:
    revisions = [
        NOT_FILLED,
        Rev("adds", sql(f"ALTER TABLE {table} ADD COLUMN a int"), sql(f"ALTER TABLE {table} DROP COLUMN a")),
    ]
    _, by_id = reviewed(write_tree(tmp_path / "backend", revisions), postgres_server)
    assert rules(by_id["adds"]).keys() & {"not-measured"} == found


@pytest.mark.stress
def test_an_env_py_that_fails_before_any_revision_ends_the_review_with_what_to_do(
    tmp_path: Path, postgres_server: Server
) -> None:
    env_py = ENV_PY.replace('os.environ["DATABASE_URL"], poolclass', 'os.environ["MY_OWN_URL"], poolclass')
    assert env_py != ENV_PY
    folder = write_tree(tmp_path / "backend", [PEOPLE], env_py=env_py)
    with pytest.raises(EnvPyError) as raised, reviewing(folder, on=postgres_server):
        pass
    assert "alembic/env.py" in str(raised.value)
    assert "KeyError: 'MY_OWN_URL' (an environment variable? See DATABASE_URL_ENV" in str(raised.value)


@pytest.mark.stress
def test_a_stages_variables_reach_env_py(tmp_path: Path, postgres_server: Server) -> None:
    env_py = ENV_PY.replace('os.environ["DATABASE_URL"], poolclass', 'os.environ["MY_OWN_URL"], poolclass')
    env_py = env_py.replace("config = context.config\n", 'config = context.config\nos.environ["WANTED_IN_ENV"]\n')
    folder = write_tree(tmp_path / "backend", [PEOPLE], env_py=env_py)
    variables = {"DATABASE_URL_ENV": "MY_OWN_URL", "WANTED_IN_ENV": "yes"}
    with reviewing(folder, on=postgres_server, variables=variables) as session:
        assert session.observe("people").upgrade.failure is None


@pytest.mark.stress
def test_the_error_of_a_missing_package_names_where_to_install_it(tmp_path: Path, postgres_server: Server) -> None:
    env_py = ENV_PY.replace("import os\n", "import os\nimport a_package_of_the_backend\n")
    folder = write_tree(tmp_path / "backend", [PEOPLE], env_py=env_py)
    with pytest.raises(EnvPyError, match=r"lacks a package of the backend: .* \.venv .* --python"):
        reviewed(folder, postgres_server)


@pytest.mark.stress
def test_a_module_of_the_backend_that_is_not_on_the_path_has_its_own_error(
    tmp_path: Path, postgres_server: Server
) -> None:
    env_py = ENV_PY.replace("import os\n", "import os, sys\nsys.path[:] = sys.path[1:]\nimport shop.models\n")
    folder = write_tree(tmp_path / "backend", [PEOPLE], env_py=env_py, ini=_without_path())
    (folder / "shop").mkdir()
    with pytest.raises(EnvPyError, match=r"shop is in the backend's folder: set prepend_sys_path"):
        reviewed(folder, postgres_server)


def _without_path() -> str:
    return ALEMBIC_INI.replace("prepend_sys_path = .\n", "")


@pytest.mark.stress
def test_an_env_py_that_can_run_only_once_in_a_process_is_run_as_the_alembic_command_does(
    tmp_path: Path, postgres_server: Server
) -> None:
    env_py = ENV_PY.replace("import os\n", "import os\nimport once\n", 1)
    env_py = env_py.replace("config = context.config\n", "config = context.config\nonce.begin()\n")
    folder = write_tree(tmp_path / "backend", [PEOPLE], env_py=env_py)
    (folder / "once.py").write_text("ran = []\ndef begin():\n    assert not ran\n    ran.append(1)\n")
    with reviewing(folder, on=postgres_server, rows=5) as session:
        seen = session.observe("people")
    assert (seen.upgrade.failure, seen.again is not None) == (None, True)


@pytest.mark.stress
def test_a_configuration_in_a_folder_of_its_own_is_run_from_the_backend(
    tmp_path: Path, postgres_server: Server
) -> None:
    folder = write_tree(tmp_path / "backend", [PEOPLE])
    (folder / "conf").mkdir()
    ini = (folder / "alembic.ini").read_text().replace("%(here)s/alembic", "alembic")
    (folder / "conf" / "alembic.ini").write_text(ini)
    (folder / "alembic.ini").unlink()
    with reviewing(folder, "conf/alembic.ini", on=postgres_server, rows=5) as session:
        assert session.observe("people").upgrade.failure is None


@pytest.mark.stress
def test_a_revision_may_import_what_env_py_has_made_importable(tmp_path: Path, postgres_server: Server) -> None:
    env_py = ENV_PY.replace("import os\n", "import os, sys\nsys.path.append(os.path.abspath('lib'))\n", 1)
    upgrade = "op.create_table('t', sa.Column('id', shop_types.Key, primary_key=True))"
    revision = Rev("people", upgrade, "op.drop_table('t')")
    folder = write_tree(tmp_path / "backend", [revision], env_py=env_py)
    file = next((folder / "alembic" / "versions").glob("*.py"))
    file.write_text(
        file.read_text().replace("import sqlalchemy as sa\n", "import sqlalchemy as sa\nimport shop_types\n")
    )
    (folder / "lib").mkdir()
    (folder / "lib" / "shop_types.py").write_text("import sqlalchemy\nKey = sqlalchemy.BigInteger\n")
    with reviewing(folder, on=postgres_server, rows=5) as session:
        assert session.observe("people").upgrade.failure is None


@pytest.mark.stress
def test_a_revision_may_keep_state_of_one_run_in_its_module(tmp_path: Path, postgres_server: Server) -> None:
    revision = Rev("people", "sa.Table('t', METADATA, sa.Column('id', sa.BigInteger, primary_key=True))\n"
                   "METADATA.create_all(op.get_bind())", "op.drop_table('t')")  # fmt: skip
    folder = write_tree(tmp_path / "backend", [revision])
    file = next((folder / "alembic" / "versions").glob("*.py"))
    file.write_text(file.read_text().replace("depends_on = None\n", "depends_on = None\nMETADATA = sa.MetaData()\n"))
    with reviewing(folder, on=postgres_server, rows=5) as session:
        seen = session.observe("people")
    assert seen.upgrade_again is not None
    assert seen.upgrade_again.failure is None


@pytest.mark.stress
def test_a_server_of_the_users_own_needs_a_role_that_makes_databases_and_puts_rows_in_them(
    tmp_path: Path, postgres_server: Server
) -> None:
    role = f"review_role_{secrets.token_hex(4)}"
    postgres.create_role(postgres_server, role, "secret")
    address = f"{role}:secret@{postgres_server.host}:{postgres_server.port}/postgres"
    tls = f"sslmode=verify-full&sslrootcert={postgres_server.ca}"
    url = f"postgresql+psycopg2://{address}?{tls}"
    try:
        with pytest.raises(ReviewError, match=f"{role} may not create databases .* CREATEDB"), server.given(ROOT, url):
            pass
        with closing(postgres_server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(f"ALTER ROLE {role} CREATEDB")
            with pytest.raises(ReviewError, match="GRANT SET ON PARAMETER"), server.given(ROOT, url):
                pass
            cursor.execute(f"GRANT SET ON PARAMETER session_replication_role TO {role}")
        folder = write_tree(tmp_path / "backend", [PEOPLE])
        with reviewing(folder, where=Where(url=url), rows=5) as session:
            assert session.observe("people").upgrade.failure is None
        with closing(postgres_server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE rolname = %s", (role,)
            )
            assert cursor.fetchone() == (0,), "the review drops what it made"
    finally:
        with closing(postgres_server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    "url, words",
    [
        ("no address at all", "is no address of PostgreSQL"),
        ("postgresql://postgres@/x", "has no host"),
        ("postgresql://127.0.0.1/x", "has no user"),
        ("postgresql://someone@127.0.0.1:1/x", "127.0.0.1:1 of --database-url does not answer"),
        # A password as it is, not percent-encoded.
        ("postgresql://someone:hidden@hidden@127.0.0.1:1/x", "is no address of PostgreSQL"),
        ("postgresql://someone:hidden@hidden:hidden/w@127.0.0.1:1/x", "is no address of PostgreSQL"),
        ("postgresql://someone:hidden@127.0.0.1:port/x", "is no address of PostgreSQL"),
        ("mysql://someone:hidden@127.0.0.1:1/x", "is no address of PostgreSQL"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(url: str, words: str) -> None:
    with pytest.raises(ReviewError, match=words) as raised, server.given(ROOT, url):
        pass
    assert "hidden" not in str(raised.value)


def test_without_a_stage_env_py_gets_what_all_stages_agree_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    settings = {
        "dev": {"environment": {"DB_DRIVER": "postgresql+psycopg", "ONE": "1", "NAME": "dev"}},
        "prod": {"environment": {"DB_DRIVER": "postgresql+psycopg", "NAME": "prod"}},
        "bare": {},
    }
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"project": {"stages": settings}}}))
    assert stages.environment(None) == {"DB_DRIVER": "postgresql+psycopg", "ONE": "1"}
    assert stages.environment("prod") == {"DB_DRIVER": "postgresql+psycopg", "NAME": "prod"}
    with pytest.raises(UsageError, match="there is no stage test"):
        stages.environment("test")
    assert stages.variables_of_all() == {"DB_DRIVER", "ONE", "NAME"}


def test_a_variable_that_a_stage_writes_as_an_object_reaches_env_py_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    settings = {"dev": {"environment": {"DATABASE_ENV": {"PG_HOST": "{host}"}}}}
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"project": {"stages": settings}}}))
    for stage in (None, "dev"):
        assert json.loads(stages.environment(stage)["DATABASE_ENV"]) == {"PG_HOST": "{host}"}


@pytest.mark.stress
def test_libraries_that_are_too_old_are_named_before_anything_runs(
    tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The metadata of SQLAlchemy 1.4, which the backend's interpreter finds first.
    metadata = tmp_path / "packages" / "sqlalchemy-1.4.41.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: SQLAlchemy\nVersion: 1.4.41\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    folder = write_tree(tmp_path / "backend", [PEOPLE])
    with (
        pytest.raises(ReviewError, match=r"the backend has sqlalchemy 1\.4\.41; the review works with 2\.0 and later"),
        reviewing(folder, on=postgres_server),
    ):
        pass


@pytest.mark.stress
def test_what_a_revision_leaves_in_the_models_is_no_difference(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path / "backend", [PEOPLE])
    (folder / "models.py").write_text("import sqlalchemy\n\nmetadata = sqlalchemy.MetaData()\n")
    env = folder / "alembic" / "env.py"
    env.write_text(env.read_text().replace("target_metadata = None", "from models import metadata as target_metadata"))
    [file] = (folder / "alembic" / "versions").glob("*people*.py")
    text = file.read_text().replace("def downgrade", "import models\nimport sqlalchemy\n\n\ndef downgrade")
    file.write_text(text.replace("def upgrade():\n", "def upgrade():\n    sqlalchemy.Table('gone', models.metadata)\n"))
    with reviewing(folder, on=postgres_server, rows=3) as session:
        assert session.observe("people").upgrade.failure is None
        assert [line for line in session.drift() if "gone" in line] == []


@pytest.mark.stress
def test_a_revision_that_refuses_rows_is_measured_with_others_in_a_large_schema(
    tmp_path: Path, postgres_server: Server
) -> None:
    tables = [f"CREATE TABLE t{number} (id bigint PRIMARY KEY, code text, n int)" for number in range(21)]
    revisions = [
        Rev("tables", sql(*tables), sql(*(f"DROP TABLE t{number}" for number in range(21)))),
        Rev("unique", sql("ALTER TABLE t7 ADD CONSTRAINT uq UNIQUE (n)"), sql("ALTER TABLE t7 DROP CONSTRAINT uq")),
    ]
    _, by_id = reviewed(write_tree(tmp_path / "backend", revisions), postgres_server)

    # Its tables have other ids in the second database, in which the first rows are replaced.
    assert rules(by_id["unique"]).keys() >= {"upgrade-depends-on-data", "disallowed-unique-constraint"}


@pytest.mark.stress
def test_a_baseline_of_another_tree_is_refused(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path / "backend", [PEOPLE])
    (folder / "baseline.sql").write_text(
        "CREATE TABLE alembic_version (version_num varchar(32));\nINSERT INTO alembic_version VALUES ('elsewhere');\n"
    )
    with (
        pytest.raises(ReviewError, match=r"baseline\.sql is at elsewhere, which is no revision of this tree"),
        reviewing(folder, on=postgres_server),
    ):
        pass
