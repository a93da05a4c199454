"""Every table gets rows that its constraints allow, for any constraints."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from migrate_review.measure import server as servers
from migrate_review.revisions.function_source import upgrade_texts
from migrate_review.rows import meaning
from migrate_review.rows.fill import fill

if TYPE_CHECKING:
    from localcloud.postgres import Database, Server

WANTED = 40

TYPES = """
    smallint integer bigint numeric numeric(5,2) numeric(3,-2) real float8 money text varchar varchar(3)
    char(4) "char" name citext boolean date time time(0) timetz timestamp timestamptz(3) interval uuid json jsonb
    jsonpath bytea inet cidr macaddr macaddr8 bit bit(7) varbit varbit(5) point line lseg box path polygon circle
    tsvector tsquery xml pg_lsn int4range int8range numrange tsrange tstzrange daterange int4multirange datemultirange
    text[] integer[][] jsonb[] mood mood[] positive address address[] floatrange hstore ltree oid regclass
"""

PREPARATION = """
    CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION btree_gist;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE DOMAIN positive AS integer CHECK (VALUE > 41 AND VALUE < 1000);
    CREATE DOMAIN code AS text NOT NULL CHECK (VALUE ~ '^[A-Z]{3}-[0-9]{4}$');
    CREATE TYPE address AS (street text, zip varchar(5), moved date);
    CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not by hand'; END $$;
"""

# By name: the table, and how many rows it can have if not all that are wanted.
ZOO = {
    "serial": "(id serial PRIMARY KEY, t text NOT NULL)",
    "always": "(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t text)",
    "no_default_key": "(id uuid PRIMARY KEY, t text UNIQUE)",
    "composite_key": "(a int, b text, c date, PRIMARY KEY (a, b), UNIQUE (c, a))",
    "generated": "(a int NOT NULL, b int GENERATED ALWAYS AS (a * 2) STORED, CHECK (b > 20))",
    "expression_key": "(email text NOT NULL); CREATE UNIQUE INDEX ON expression_key (lower(email))",
    "partial_key": "(a int NOT NULL, done bool NOT NULL); CREATE UNIQUE INDEX ON partial_key (a) WHERE NOT done",
    "in_list": "(status text NOT NULL CHECK (status IN ('new', 'paid', 'sent')), n int CHECK (n = ANY (ARRAY[7, 9])))",
    "bounds": "(p numeric(5,2) NOT NULL CHECK (p BETWEEN 42.5 AND 43.75), y int NOT NULL CHECK (y >= 19 AND y < 24))",
    "pattern": "(phone text NOT NULL CHECK (phone ~ '^\\+[0-9]{7,15}$'), c code, slug text CHECK (slug LIKE 'item-%'))",
    "lengths": "(c text NOT NULL CHECK (char_length(c) = 17), d varchar(9) NOT NULL CHECK (length(d) > 6),"
    " e text CHECK (e = lower(e)))",
    "compared": "(a timestamptz NOT NULL, b timestamptz NOT NULL, c int, d int, CHECK (a < b), CHECK (c + 1 = d))",
    "either": "(a int, b text, c date, CHECK (num_nonnulls(a, b, c) = 1))",
    "document": "(d jsonb NOT NULL CHECK (jsonb_typeof(d) = 'object' AND d ? 'kind'), e json)",
    "booking": "(room int NOT NULL, during tstzrange NOT NULL, EXCLUDE USING gist (room WITH =, during WITH &&))",
    "deferred_key": "(a int NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    "owner": "(id bigserial PRIMARY KEY, name text NOT NULL)",
    "owned": "(id bigserial PRIMARY KEY, owner_id bigint NOT NULL REFERENCES owner, other_id bigint REFERENCES owner)",
    "one_to_one": "(owner_id bigint PRIMARY KEY REFERENCES owner, x int)",
    "many_to_many": "(a_id bigint REFERENCES owner, b_id bigint REFERENCES owned, PRIMARY KEY (a_id, b_id))",
    "composite_child": "(id int PRIMARY KEY, a int, b text, FOREIGN KEY (a, b) REFERENCES composite_key MATCH FULL)",
    "tree": "(id bigserial PRIMARY KEY, parent_id bigint REFERENCES tree, CHECK (parent_id <> id))",
    "strict_tree": "(id bigserial PRIMARY KEY, parent_id bigint NOT NULL REFERENCES strict_tree)",
    "list_parts": "(region text NOT NULL, n int) PARTITION BY LIST (region);"
    " CREATE TABLE lp1 PARTITION OF list_parts FOR VALUES IN ('emea', 'apac')",
    "range_parts": "(at date NOT NULL, n int) PARTITION BY RANGE (at);"
    " CREATE TABLE rp1 PARTITION OF range_parts FOR VALUES FROM ('2031-01-01') TO ('2031-02-01')",
    "hash_parts": "(id bigserial, n int, PRIMARY KEY (id)) PARTITION BY HASH (id);"
    " CREATE TABLE hp1 PARTITION OF hash_parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
    " CREATE TABLE hp2 PARTITION OF hash_parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "guarded": "(a int NOT NULL); CREATE TRIGGER no BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION refuse()",
    "risky_index": "(d text NOT NULL); CREATE INDEX ON risky_index ((d::int))",
    '"Odd name; 100%"': '("Select" int NOT NULL CHECK ("Select" % 2 = 0), "ü 1%" text)',
    "no_columns": "()",
    "small_key": "(m mood PRIMARY KEY, b bool)",
}
# What is left when most candidates are refused, one by one or for each of several reasons.
FEWER = {"small_key": 3, "lengths": 20, "risky_index": 20}

CIRCLES = """
    CREATE TABLE hen (id serial PRIMARY KEY, egg_id int);
    CREATE TABLE egg (id serial PRIMARY KEY, hen_id int NOT NULL REFERENCES hen);
    ALTER TABLE hen ADD FOREIGN KEY (egg_id) REFERENCES egg;
    CREATE TABLE lock (id serial PRIMARY KEY, key_id int NOT NULL);
    CREATE TABLE key (id serial PRIMARY KEY, lock_id int NOT NULL REFERENCES lock DEFERRABLE);
    ALTER TABLE lock ADD FOREIGN KEY (key_id) REFERENCES key DEFERRABLE
"""

VERSION_TABLE = (None, "alembic_version")


def types() -> list[str]:
    return TYPES.split()


@pytest.fixture
def zoo(database: Database, postgres_server: Server) -> Database:
    """A database as the superuser, with the types of PREPARATION."""
    whole = postgres_server.database(database.name)
    with closing(whole.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(PREPARATION)
    return whole


def filled(
    database: Database, ddl: str, wanted: int = WANTED
) -> tuple[dict[str, str], dict[str, list[tuple[str, ...]]]]:
    """Return the tables that stayed empty, and the number of rows of the others."""
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(ddl)
        unfilled = fill(opened, wanted, VERSION_TABLE)
        cursor.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relnamespace = 'public'::regnamespace AND NOT relispartition"
        )
        rows = {}
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT each::text FROM {table} AS each")  # noqa: S608 - ours
            rows[table] = cursor.fetchall()
        return unfilled, rows


def test_columns_of_every_type_get_different_values(zoo: Database) -> None:
    columns = types()
    assert len(columns) > 60
    ddl = ";".join(f"CREATE TABLE t{at} (v {kind} NOT NULL, w {kind})" for at, kind in enumerate(columns))
    unfilled, rows = filled(zoo, ddl)
    assert unfilled == {}
    alike = {columns[int(table[1:])] for table, values in rows.items() if len(set(values)) < 4}
    assert alike <= {"bit"}
    assert {len(values) for values in rows.values()} == {WANTED}


@pytest.mark.stress
def test_columns_of_every_type_may_be_keys(zoo: Database) -> None:
    keyless = {"json", "jsonpath", "point", "line", "lseg", "box", "path", "polygon", "circle", "xml"}
    few = {"mood": 3, "boolean": 2, "bit": 2, "regclass": 4, "address": 1, "tsquery": 3, "numeric(3,-2)": 5}
    few |= {"mood[]": 5, "address[]": 5}
    columns = [kind for kind in types() if kind not in keyless]
    ddl = ";".join(f"CREATE TABLE t{at} (v {kind} PRIMARY KEY)" for at, kind in enumerate(columns))
    unfilled, rows = filled(zoo, ddl)
    assert unfilled == {}
    counts = {columns[int(table[1:])]: len(values) for table, values in rows.items()}
    assert {kind: count for kind, count in counts.items() if count < few.get(kind, 10)} == {}


@pytest.mark.stress
def test_tables_of_every_constraint_are_filled_and_twice_alike(zoo: Database) -> None:
    ddl = ";".join(f"CREATE TABLE {name} {definition}" for name, definition in ZOO.items())
    unfilled, rows = filled(zoo, ddl)
    assert unfilled == {}
    assert rows.keys() == ZOO.keys()
    assert {name: len(rows[name]) for name in ZOO if not FEWER.get(name, WANTED) <= len(rows[name]) <= WANTED} == {}
    with closing(zoo.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        cursor.execute(PREPARATION)
    _, again = filled(zoo, ddl)
    # Sequences are the server's own, so a table that counts is not compared.
    assert all(again[name] == rows[name] for name in ZOO if "serial" not in ZOO[name] and "owne" not in name)


def test_a_table_without_partitions_stays_empty_at_once(database: Database) -> None:
    ddl = (
        "CREATE TABLE whole (id int) PARTITION BY RANGE (id); CREATE TABLE outer_parts (id int) PARTITION BY LIST (id);"
        " CREATE TABLE inner_parts PARTITION OF outer_parts FOR VALUES IN (1) PARTITION BY LIST (id)"
    )
    unfilled, rows = filled(database, ddl)
    assert unfilled == dict.fromkeys(("whole", "outer_parts"), "it has no partitions")
    assert rows == {"whole": [], "outer_parts": []}


def test_values_differ_from_table_to_table(zoo: Database) -> None:
    columns = "(id uuid PRIMARY KEY, other uuid, name text NOT NULL UNIQUE, email text NOT NULL UNIQUE)"
    _, rows = filled(zoo, ";".join(f"CREATE TABLE {name} {columns}" for name in ("cats", "dogs")))
    cats, dogs = ({value for (row,) in rows[name] for value in row.strip("()").split(",")} for name in ("cats", "dogs"))
    assert cats & dogs <= {""}


# A column, its default, what revisions do with it; and what all of its values are in JavaScript's words.
DOCUMENTS = {
    "unknown": ("prefs", None, "", "object"),
    "default": ("prefs", "'[]'::jsonb", "", "array"),
    "elements": ("prefs", "'{}'::jsonb", "SELECT jsonb_array_elements_text(v.prefs) FROM visitors v", "array"),
    "elements_of_key": ("prefs", None, "SELECT jsonb_array_elements(prefs->'tags') FROM visitors", "object"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents_have_the_shape_that_the_code_expects(case: str) -> None:
    column, default, text, shape = DOCUMENTS[case]
    found = [json.loads(each) for each in meaning.documents(column, default, [text], tame=False)]
    assert {type(each) for each in found} == {{"object": dict, "array": list}[shape]}
    assert len(found) > 3


def test_documents_have_the_keys_that_the_code_takes() -> None:
    text = "prefs['theme']\nSELECT (prefs->>'age')::int, prefs->'home'->>'city', jsonb_array_elements(prefs->'tags')"
    found = [json.loads(each) for each in meaning.documents("prefs", None, [text], tame=True)]
    assert all({"theme", "age", "home", "tags"} <= each.keys() for each in found)
    assert {type(each["age"]) for each in found} == {int}
    assert {type(each["home"]["city"]) for each in found} == {str}
    assert {type(each["tags"]) for each in found} == {list}
    # Python raises KeyError, and SQL finds NULL: that may be so in production.
    wild = [json.loads(each) for each in meaning.documents("prefs", None, [text], tame=False)]
    assert all("theme" in each for each in wild)
    assert not all("age" in each for each in wild)


@pytest.mark.parametrize(
    "column,text,kind,some",
    [
        ("client_ip", "", "wild", "192.0.2.1"),
        ("lastLoginIp", "", "wild", "192.0.2.1"),
        ("contact_email", "", "wild", "ada.lovelace@example.com"),
        ("avatar_url", "", "wild", "https://example.com/"),
        ("country_code", "", "wild", "DE"),
        ("is_active", "", "wild", "true"),
        ("origin", "INSERT INTO a SELECT s.origin::inet FROM s", "wild", "192.0.2.1"),
        ("origin", "SELECT CAST(origin AS timestamptz)", "wild", "2024-02-29 12:00:00"),
        ("weight", "SELECT weight::numeric", "tame", "9.99"),
        ("weight", "SELECT weight::numeric", "wild", None),
        ("weight", "SELECT other_weight::inet", "wild", None),
        ("ship", "", "wild", None),
        ("description", "", "wild", None),
    ],
)
def test_texts_follow_the_code_or_the_name(column: str, text: str, kind: str, some: str | None) -> None:
    found = meaning.of_text(column, [text], tame=kind == "tame")
    assert (found is None) if some is None else (found is not None and some in found.some)


def test_python_that_parses_a_value_shows_its_type() -> None:
    source = b"""
def upgrade():
    for row in rows:
        json.loads(row.data)["kind"], uuid.UUID(row["key"]), row.prefs.get("theme")
"""
    assert {"data::jsonb", "data['kind']", "key::uuid", "prefs -> 'theme'"} <= {*upgrade_texts(source).splitlines()}


def test_circles_of_foreign_keys_are_closed(zoo: Database) -> None:
    unfilled, rows = filled(zoo, CIRCLES)
    assert unfilled == {}
    assert {len(values) for values in rows.values()} == {WANTED}
    with closing(zoo.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT count(egg_id), count(DISTINCT egg_id) > 1 FROM hen")
        [(closed, varied)] = cursor.fetchall()
        assert (10 < closed < WANTED, varied) == (True, True)
        cursor.execute("SELECT FROM lock WHERE key_id NOT IN (SELECT id FROM key)")
        assert cursor.fetchall() == []


def test_rows_that_are_there_stay_and_are_topped_up(zoo: Database) -> None:
    ddl = "CREATE TABLE plan (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text UNIQUE NOT NULL);"
    _, rows = filled(zoo, ddl + "INSERT INTO plan (name) VALUES ('free'), ('team')")  # noqa: S608 - ours
    assert len(rows["plan"]) == WANTED
    assert rows["plan"][:2] == [("(1,free)",), ("(2,team)",)]
    _, again = filled(zoo, "INSERT INTO plan (name) VALUES ('after')", WANTED + 5)
    assert len(again["plan"]) == WANTED + 5


def test_a_table_that_cannot_have_rows_is_named_with_the_reason(zoo: Database) -> None:
    unfilled, _ = filled(
        zoo,
        "CREATE TABLE never (a int NOT NULL CHECK (a > 5 AND a < 3));"
        "CREATE TABLE below (never_id int NOT NULL);"
        "ALTER TABLE never ADD PRIMARY KEY (a); ALTER TABLE below ADD FOREIGN KEY (never_id) REFERENCES never",
    )
    assert unfilled == {
        "never": "no row satisfied its constraints",
        "below": "it refers to never, which has no rows",
    }


def test_a_text_that_code_reads_as_a_document_or_a_day_holds_nothing_else() -> None:
    code = ["repos", "for row in rows:\n    creds = json.loads(row.creds)\n    print(creds['protocol'])"]
    found = meaning.of_text("creds", code, tame=False)
    assert found is not None
    assert found.only
    assert all("protocol" in json.loads(each) for each in found.some)
    day = meaning.of_text("noted", ["UPDATE orders SET d = to_date(noted, 'DD.MM.YYYY')"], tame=False)
    assert day is not None
    assert day.some == ("31.12.1999", "29.02.2024", "01.01.2026")
    assert meaning.of_text("noted", ["UPDATE orders SET noted = 'x'"], tame=False) is None


def test_columns_that_were_added_to_rows_get_values(postgres_server: Server) -> None:
    with (
        servers.database(postgres_server) as database,
        closing(database.connect()) as opened,
        opened.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE owners (id int PRIMARY KEY); CREATE TABLE things (id int PRIMARY KEY)")
        assert fill(opened, WANTED, (None, "alembic_version")) == {}
        cursor.execute(
            "ALTER TABLE things ADD note text, ADD prefs jsonb, ADD code text UNIQUE,"
            " ADD owner int REFERENCES owners, ADD low int, ADD high int, ADD CHECK (low < high)"
        )
        assert fill(opened, WANTED, (None, "alembic_version")) == {}
        cursor.execute(
            "SELECT count(DISTINCT note), count(DISTINCT prefs::text), count(code), count(owner) FROM things"
        )
        [(notes, prefs, codes, owners)] = cursor.fetchall()
    assert notes > 3
    assert prefs > 3
    assert codes == WANTED
    assert owners > WANTED / 2
