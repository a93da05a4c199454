"""TLS holds for env.py's session, too: with any driver and any arguments, or the run is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from localcloud import postgres, testing
from tests.support.bystander import query
from tests.support.env_py.backend import ABC, online, package_with
from tests.support.functions import ROOT
from tests.support.mitm import Attack, ManInTheMiddle
from tests.support.samples import sampled, sampled_by_name
from tests.support.trees import Rev, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database
    from localcloud.runtime_api import Answer
    from tests.support.functions import Runner

SYNC = """
engine = create_engine({url}{arguments})
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
ASYNC = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
def work(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
async def main():
    async with create_async_engine({url}{arguments}).connect() as connection:
        await connection.run_sync(work)
asyncio.run(main())
"""


def env_py(driver: str, query_of_url: str = "", arguments: str = "", before: str = "") -> str:
    body = ASYNC if driver in {"asyncpg", "psycopg_async"} else SYNC
    url = f"sa.make_url(os.environ['DATABASE_URL']).set(drivername='postgresql+{driver}')"
    if query_of_url:
        url += f".update_query_string('{query_of_url}')"
    return online(before + body.format(url=url, arguments=arguments and f", {arguments}"))


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


CREATOR = """
import psycopg2
url = sa.make_url(os.environ["DATABASE_URL"])
def connect():
    return psycopg2.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database, sslmode="disable"
    )
"""
BELOW = "(lambda **given: psycopg2._connect(psycopg2.extensions.make_dsn(**given)))("
CREATORS = {
    "psycopg": """
import psycopg
url = sa.make_url(os.environ["DATABASE_URL"])
def connect():
    return psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database, sslmode="disable"
    )
""",
    "pg8000": """
import pg8000
url = sa.make_url(os.environ["DATABASE_URL"])
def connect():
    return pg8000.connect(
        url.username, host=url.host, port=url.port, password=url.password, database=url.database, ssl_context=False
    )
""",
    "asyncpg": """
import asyncpg
url = sa.make_url(os.environ["DATABASE_URL"])
def connect():
    return asyncpg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, database=url.database, ssl=False
    )
""",
}
LISTENER = """
@sa.event.listens_for(sa.Engine, "do_connect")
def weaken(dialect, record, arguments, parameters):
    parameters["sslmode"] = "prefer"
"""
# A dialect of an env.py's own, of psycopg or psycopg2, with another name or driver.
DIALECT = """
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.{driver} import PGDialect_{driver}
class Own(PGDialect_{driver}):
    {differs}
    supports_statement_cache = True
sys.modules["own_dialect"] = type(sys)("own_dialect"); sys.modules["own_dialect"].Own = Own
registry.register("{registered}", "own_dialect", "Own")
"""
# What env.py does about TLS, and whether that is less than what the stage wants.
WEAK = {
    "psycopg2": (env_py("psycopg2"), False),
    "psycopg2 disable": (env_py("psycopg2", arguments="connect_args={'sslmode': 'disable'}"), True),
    "psycopg2 prefer in the URL": (env_py("psycopg2", "sslmode=prefer"), True),
    "psycopg2 require": (env_py("psycopg2", "sslmode=require"), True),
    "psycopg2 verify-ca": (env_py("psycopg2", "sslmode=verify-ca"), True),
    "psycopg2 in a dsn": (env_py("psycopg2", arguments="connect_args={'dsn': 'sslmode=allow'}"), True),
    "psycopg2 in a listener": (env_py("psycopg2", before=LISTENER), True),
    "psycopg2 in a creator": (env_py("psycopg2", arguments="creator=connect", before=CREATOR), True),
    "psycopg2 by environment": (env_py("psycopg2", before="os.environ['PGSSLMODE'] = 'disable'\n"), False),
    "psycopg": (env_py("psycopg"), False),
    "psycopg disable": (env_py("psycopg", arguments="connect_args={'sslmode': 'disable'}"), True),
    "psycopg in async": (env_py("psycopg_async", "sslmode=prefer"), True),
    "asyncpg": (env_py("asyncpg"), False),
    "asyncpg False": (env_py("asyncpg", arguments="connect_args={'ssl': False}"), True),
    "asyncpg prefer in the URL": (env_py("asyncpg", "ssl=prefer"), True),
    "asyncpg with a mode that does not exist": (env_py("asyncpg", "ssl=true"), True),
    "psycopg with another dialect": (
        online(
            DIALECT.format(driver="psycopg", differs="name = 'kindred'", registered="kindred.psycopg")
            + SYNC.format(
                url="sa.make_url(os.environ['DATABASE_URL']).set(drivername='kindred+psycopg')",
                arguments=", connect_args={'sslmode': 'disable'}",
            )
        ),
        True,
    ),
    "asyncpg with a context that checks nothing": (
        env_py(
            "asyncpg",
            arguments="connect_args={'ssl': trusting}",
            before="import ssl; trusting = ssl.create_default_context()\n"
            "trusting.check_hostname = False; trusting.verify_mode = ssl.CERT_NONE\n",
        ),
        True,
    ),
    "asyncpg by environment": (env_py("asyncpg", before="os.environ['PGSSLMODE'] = 'prefer'\n"), False),
    "pg8000": (env_py("pg8000"), False),
    "pg8000 True": (env_py("pg8000", arguments="connect_args={'ssl_context': True}"), True),
    "pg8000 False": (env_py("pg8000", arguments="connect_args={'ssl_context': False}"), True),
    "psycopg2 below connect()": (
        env_py("psycopg2", arguments="creator=connect", before=CREATOR.replace("psycopg2.connect(", BELOW)),
        True,
    ),
    **{
        f"{driver} in a creator": (
            env_py(
                driver,
                arguments=f"{'async_' if driver == 'asyncpg' else ''}creator=connect",
                before=CREATORS[driver],
            ),
            True,
        )
        for driver in CREATORS
    },
}
SAMPLE = {
    ("asyncpg False", "no TLS"),
    ("pg8000", "own certificate"),
    ("psycopg2 below connect()", "no TLS"),
    ("psycopg in a creator", "no TLS"),
}


@pytest.mark.parametrize(
    "source,asks_for_less,attack",
    [
        pytest.param(
            *case, attack, id=f"{name}, {attack}", marks=() if (name, attack) in SAMPLE else pytest.mark.stress
        )
        for name, case in WEAK.items()
        for attack in ("own certificate", "no TLS")
    ],
)
def test_a_man_in_the_middle_who_lets_the_first_session_pass_gets_no_password(
    runner: Runner,
    database: Database,
    put_secret: Callable[[object], str],
    tmp_path: Path,
    source: str,
    asks_for_less: bool,  # noqa: FBT001 - a case
    attack: Attack,
) -> None:
    with ManInTheMiddle(("127.0.0.1", database.port), attack) as middle:
        answer = runner.invoke(
            write_tree(tmp_path / "tree", ABC, env_py=source),
            DB_SECRET_ID=put_secret(replace(database, port=middle.port).secret),
            CONNECT_TIMEOUT_S="2",
        )

    assert middle.passwords == []
    assert answer.error_type is not None
    if asks_for_less:
        assert answer.error_type == "ConfigurationError"
        assert "DB_SSLMODE is verify-full" in answer.message
        assert middle.attacked == 0


def upgrade(runner: Runner, tmp_path: Path, source: str, **environment: str) -> Answer:
    return runner.invoke(write_tree(tmp_path / "tree", ABC, env_py=source), **environment)


@pytest.mark.stress
@pytest.mark.parametrize("driver", sampled(["psycopg_async", "pg8000"], ["pg8000"]))
def test_each_driver_connects_with_the_stage_s_tls(
    runner: Runner, database: Database, tmp_path: Path, driver: str
) -> None:
    answer = upgrade(runner, tmp_path, env_py(driver))

    assert answer.error_type is None, answer.payload
    assert query(database, "SELECT version_num FROM alembic_version") == [(ABC[-1].id,)]


@pytest.mark.stress
@pytest.mark.parametrize(
    "source",
    sampled_by_name(
        {
            "psycopg2": env_py("psycopg2", "sslmode=verify-full"),
            "asyncpg": env_py("asyncpg", arguments="connect_args={'ssl': 'verify-full'}"),
        },
        {"asyncpg"},
    ),
)
def test_env_py_may_ask_for_more(runner: Runner, tmp_path: Path, source: str) -> None:
    assert upgrade(runner, tmp_path, source, DB_SSLMODE="require").error_type is None


NOTES = """
driver = op.get_bind().connection.driver_connection
get = getattr(driver.info, "dsn_parameters", None) or {
    each.keyword.decode(): each.val and each.val.decode() for each in driver.pgconn.info
}
op.execute(sa.text("CREATE TABLE seen AS SELECT CAST(:mode AS text) AS mode").bindparams(mode=get.get("gssencmode")))
"""


@pytest.mark.stress
@pytest.mark.parametrize("driver", sampled(["psycopg2", "psycopg"], ["psycopg2"]))
def test_kerberos_does_not_take_the_place_of_tls(
    runner: Runner, database: Database, tmp_path: Path, driver: str
) -> None:
    source = env_py(driver, arguments="connect_args={'gssencmode': 'prefer'}")

    answer = runner.invoke(write_tree(tmp_path / "tree", [Rev("a1", NOTES)], env_py=source))

    assert answer.error_type is None, answer.payload
    assert query(database, "SELECT mode FROM seen") == [("disable",)]


def test_an_unknown_driver_is_refused_where_certificates_are_verified(runner: Runner, tmp_path: Path) -> None:
    unknown = DIALECT.format(driver="psycopg2", differs="driver = 'unknown'", registered="postgresql.unknown")

    answer = upgrade(runner, tmp_path, env_py("unknown", before=unknown))

    assert answer.error_type == "ConfigurationError"
    assert "the driver unknown" in answer.message


@pytest.fixture
def lenient(shared_run: Path, worker_id: str) -> Iterator[Database]:
    """A database on a server that also accepts connections without TLS."""
    server = postgres.start(ROOT, testing.clusters(shared_run) / f"lenient-{worker_id}", durable=False, needs_tls=False)
    postgres.create_role(server, "lenient", "no-secret-of-anybody")
    postgres.create_database(server, "lenient", "lenient")
    yield server.database("lenient", "lenient", "no-secret-of-anybody")
    postgres.stop(server.directory)


def test_a_session_that_env_py_opens_past_sqlalchemy_without_tls_is_refused(
    runner: Runner, lenient: Database, put_secret: Callable[[object], str], tmp_path: Path
) -> None:
    # Below `psycopg2._connect`, which has the policy.
    creator = CREATOR.replace("psycopg2.connect(", BELOW.replace("psycopg2._connect", "psycopg2.extensions.connection"))

    answer = upgrade(
        runner,
        tmp_path,
        env_py("psycopg2", arguments="creator=connect", before=creator),
        DB_SECRET_ID=put_secret(lenient.secret),
        DB_SSLROOTCERT=str(lenient.ca),
    )

    assert answer.error_type == "ConfigurationError"
    assert "env.py's session is not encrypted, and DB_SSLMODE is verify-full" in answer.message
    assert query(lenient, "SELECT to_regclass('public.alembic_version')") == [(None,)]
