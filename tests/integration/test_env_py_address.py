"""Any env.py runs unmodified: Alembic's templates, and however env.py gets its address and logs."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config

from localcloud import postgres
from localcloud.clients import client
from tests.support.env_py.backend import ABC, CONNECT, CONNECT_TO_URL, Backend, connecting, online, package_with
from tests.support.samples import in_two_sets
from tests.support.trees import ALEMBIC_INI, Rev, autocommit, write_revision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path, ALLOW_DOWNGRADE="true")


class TestTemplates:
    @pytest.mark.parametrize(
        "template,driver",
        [
            pytest.param("generic", "postgresql+psycopg2", marks=pytest.mark.stress),
            pytest.param("pyproject", "postgresql+psycopg", marks=pytest.mark.stress),
            ("async", "postgresql+asyncpg"),
            pytest.param("pyproject_async", "postgresql+psycopg", marks=pytest.mark.stress),
        ],
    )
    def test_alembics_own_run_as_alembic_init_writes_them(
        self, runner: Runner, tmp_path: Path, template: str, driver: str
    ) -> None:
        folder = initialised(template, tmp_path / "stock")
        config = "pyproject.toml" if "pyproject" in template else "alembic.ini"
        function = runner.start(folder, DB_DRIVER=driver, ALEMBIC_CONFIG=config)

        plan = function.invoke({"action": "plan"})
        answer = function.invoke()

        assert "CREATE TABLE a" in plan.payload["plan"][0]["sql"], plan.payload
        assert answer.error_type is None, answer.payload
        assert (answer.payload["revision"], answer.payload["up_to_date"]) == ("d4", True)
        assert [applied["revision"] for applied in answer.payload["applied"]] == ["a1", "b2", "c3", "d4"]

    @pytest.mark.stress
    def test_the_driver_that_the_config_file_names_is_kept(self, runner: Runner, tmp_path: Path) -> None:
        folder = initialised("async", tmp_path / "stock")
        ini = folder / "alembic.ini"
        ini.write_text(ini.read_text().replace("driver://user:pass@localhost/dbname", "postgresql+asyncpg://x@y/z"))

        assert runner.invoke(folder).payload["revision"] == "d4"

    @pytest.mark.stress
    def test_a_driver_that_env_py_cannot_use_is_named(self, runner: Runner, tmp_path: Path) -> None:
        answer = runner.invoke(initialised("async", tmp_path / "stock"))

        assert answer.error_type == "ConfigurationError"
        assert "set DB_DRIVER" in answer.message

    @pytest.mark.stress
    def test_multidb_is_refused(self, runner: Runner, tmp_path: Path) -> None:
        answer = runner.invoke(initialised("multidb", tmp_path / "stock"))

        assert answer.error_type == "ConfigurationError"
        assert "multidb" in answer.message


def initialised(template: str, folder: Path) -> Path:
    """Make a folder with `alembic init -t TEMPLATE alembic` and revisions, one of them outside of a transaction."""
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command.init(Config(str(folder / "alembic.ini"), toml_file="pyproject.toml"), "alembic", template=template)
    concurrently = Rev("d4", autocommit("CREATE INDEX CONCURRENTLY a_id ON a (id)"))
    previous = None
    for revision in (*ABC, concurrently):
        write_revision(folder / "alembic" / "versions", revision, previous)
        previous = revision.id
    return folder


# Each ends with `connect()`: the ways in which env.py files learn where to go.
ADDRESSES = {
    "a variable of its own name": 'url = os.environ["MY_DB_URL"]',
    "another variable": 'url = os.environ["DATABASE_URL"]',
    "separate parts": """
url = sa.URL.create("postgresql+psycopg2", os.environ["PG_USER"], os.environ["PG_PASS"], os.environ["PG_SERVER"],
                    int(os.environ["PG_PORT"]), os.environ["PG_DB"])
assert os.environ["PG_DRIVER"] == "postgresql+psycopg2"
assert os.environ["PG_TLS"] == "verify-full " + os.environ["PGSSLROOTCERT"]
assert sa.make_url(os.environ["PG_URL"]) == url
""",
    "sqlalchemy.url": 'url = config.get_main_option("sqlalchemy.url")',
    "engine_from_config": """
section = config.get_section(config.config_ini_section, {})
engine = sa.engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
url = engine.url
""",
    "set_main_option, percent signs forgotten": """
config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"])
url = config.get_main_option("sqlalchemy.url")
""",
    "set_main_option, percent signs escaped": """
config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"].replace("%", "%%"))
url = config.get_main_option("sqlalchemy.url")
""",
    "a section changed by hand": """
section = config.get_section(config.config_ini_section)
section["sqlalchemy.url"] = os.environ["DATABASE_URL"]
url = sa.engine_from_config(section, poolclass=pool.NullPool).url
""",
    "libpq's own variables": """
os.environ.update(PGHOST=os.environ["PG_SERVER"], PGPORT=os.environ["PG_PORT"], PGUSER=os.environ["PG_USER"],
                  PGPASSWORD=os.environ["PG_PASS"], PGDATABASE=os.environ["PG_DB"])
url = "postgresql+psycopg2://"
""",
    "-x arguments, where there are none": """
assert context.get_x_argument(as_dictionary=True) == {}
assert config.cmd_opts.revision == "head" and config.cmd_opts.sql is False
assert sys.argv[1:] == ["-c", "alembic.ini", "upgrade", "head"]
url = context.get_x_argument(as_dictionary=True).get("url", os.environ["DATABASE_URL"])
""",
}
ADDRESSES_SAMPLE = ("separate parts", "engine_from_config", "set_main_option, percent signs forgotten")


# The ways in which env.py files take a connection that is handed over.
HANDED_OVER = (
    'connection = config.attributes["connection"]',
    'connection = config.attributes.get("connection", None)',
    'assert "connection" in config.attributes\nconnection = config.attributes["connection"]',
    'connection = config.attributes.pop("connection")',
    'connection = config.attributes.pop("connection", None)',
    'connection = config.attributes.setdefault("connection", None)',
    # As pytest-alembic hands over an engine.
    'with config.attributes["connection"].connect() as connection:\n    pass',
    'assert config.attributes.get("configure_logger", True)\nconnection = config.attributes["connection"]',
)


class TestAddress:
    @pytest.mark.parametrize("ways", in_two_sets(ADDRESSES, ADDRESSES_SAMPLE))
    def test_env_py_may_take_it_from_wherever_it_likes(
        self, runner: Runner, database: Database, tmp_path: Path, ways: list[str]
    ) -> None:
        """The password contains every special character."""
        parts = {
            "PG_URL": "{url}", "PG_DRIVER": "{driver}", "PG_SERVER": "{host}", "PG_PORT": "{port}", "PG_USER": "{user}",
            "PG_PASS": "{password}", "PG_DB": "{database}", "PG_TLS": "{sslmode} {sslrootcert}",
        }  # fmt: skip
        backend = Backend(
            runner, database, tmp_path, DATABASE_ENV=json.dumps(parts), DATABASE_URL_ENV="MY_DB_URL, DATABASE_URL"
        )
        ini = ALEMBIC_INI.replace("[alembic]", "[alembic]\nsqlalchemy.url = driver://user:pass@localhost/dbname")

        for way in ways:
            backend.upgraded(online(way + CONNECT_TO_URL), ini=ini)

    @pytest.mark.stress
    @pytest.mark.parametrize("ways", [HANDED_OVER[:1], HANDED_OVER[1:]])
    def test_env_py_may_take_a_connection(self, backend: Backend, ways: tuple[str, ...]) -> None:
        for way in ways:
            backend.upgraded(online(way + "\ncontext.configure(connection)\ncontext.run_migrations()"))

    @pytest.mark.stress
    def test_no_connection_is_made_for_who_does_not_ask(self, backend: Backend) -> None:
        env_py = connecting(
            before="connection.execute(text('SELECT 1')); connection.commit()",
            after="print(connection.scalar(text(\"SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '/'"
            ' AND usename = current_user")))',
        )

        backend.upgraded(env_py)

        assert backend.output("stdout") == [("INFO", "2")]  # env.py's and the one that holds the lock

    @pytest.mark.stress
    def test_sqlalchemy_url_is_left_out_where_the_config_file_has_none(self, backend: Backend) -> None:
        backend.upgraded(connecting(before='assert config.get_main_option("sqlalchemy.url") is None'))

    def test_a_secret_in_a_foreign_error_does_not_show(self, backend: Backend) -> None:
        by_hand = 'config.file_config.set("alembic", "sqlalchemy.url", os.environ["DATABASE_URL"])'

        message = backend.refused(online(by_hand))

        assert message.startswith("ConfigurationError: env.py failed before any revision ran: ValueError: ")
        assert "postgresql+psycopg2://***@" in message

    def test_a_warm_function_reaches_another_target_and_a_rotated_password(
        self,
        runner: Runner,
        backend: Backend,
        database: Database,
        postgres_server: Server,
        emulator: Emulator,
        put_secret: Callable[[object], str],
    ) -> None:
        """The application has cached the address in the module that was imported first."""
        settings = "import os\nURL = os.environ['DATABASE_URL']\n"
        other = f"{database.name}_other"
        postgres.create_database(postgres_server, other, database.user)
        top = "import settings_of_app"
        env_py = online("url = settings_of_app.URL\n" + CONNECT_TO_URL, top)
        try:
            first = backend.run(env_py, settings_of_app=settings)
            by_name = backend.invoke({"target": {"database": other}})
            secret = put_secret({**database.secret, "dbname": other})
            by_secret = backend.invoke({"target": {"secret_id": secret}})
            rotated = replace(database, password="rotated % @:/?#[]'\\")
            postgres.create_role(postgres_server, rotated.user, rotated.password)
            manager = client(emulator, "secretsmanager")
            manager.put_secret_value(
                SecretId=runner.environment["DB_SECRET_ID"], SecretString=json.dumps(rotated.secret)
            )
            after_rotation = backend.invoke()
        finally:
            with closing(postgres_server.connect()) as connection, connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS {other} WITH (FORCE)")

        assert [answer.error_type for answer in (first, by_name, by_secret, after_rotation)] == [None] * 4
        assert (first.payload["database"], len(first.payload["applied"])) == (database.name, 3)
        assert (by_name.payload["database"], len(by_name.payload["applied"])) == (other, 3)
        assert (by_secret.payload["database"], by_secret.payload["previous_revision"]) == (other, "c3")
        assert (after_rotation.payload["database"], after_rotation.payload["applied"]) == (database.name, [])


# The ways in which env.py files set up logging.
SETUPS = {
    "fileConfig": "assert config.config_file_name\nlogging.config.fileConfig(config.config_file_name)",
    "disabling": "logging.config.fileConfig(config.config_file_name, disable_existing_loggers=True)",
    "dictConfig": 'logging.config.dictConfig({"version": 1, "handlers": {"c": {"class":'
    ' "logging.StreamHandler"}}, "root": {"handlers": ["c"], "level": "ERROR"}})',
    "basicConfig": "logging.basicConfig(level=logging.INFO, force=True)",
    "a handler on the root": "logging.getLogger().addHandler(logging.StreamHandler())",
    "one on standard output": "logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))",
    "handlers replaced": "logging.getLogger().handlers = [logging.StreamHandler(sys.__stderr__)]",
}


class TestOutput:
    @pytest.mark.parametrize("setups", in_two_sets(SETUPS, ("fileConfig", "one on standard output")))
    def test_whatever_logging_env_py_sets_up_every_line_is_json_with_its_level(
        self, backend: Backend, setups: list[str]
    ) -> None:
        for setup in setups:
            backend.upgraded(
                connecting(
                    top=setup,
                    before="logging.getLogger('app').warning('%s\\nand\\n%s', 'one', 2)",
                    after="logging.getLogger('app.x').info('shown'); logging.getLogger('app.x').debug('hidden')",
                )
            )

        assert backend.output("app") == [("WARNING", "one and 2")] * len(setups)
        assert backend.output("app.x") == [("INFO", "shown")] * len(setups)
        assert len(backend.runner.events("revision.applied")) == 3 * len(setups)
        assert {line["source"] for line in backend.runner.events("backend.output")} == {"app", "app.x"}

    @pytest.mark.stress
    def test_a_logger_of_its_own_that_does_not_propagate(self, backend: Backend) -> None:
        env_py = online(
            """
own = logging.getLogger("own")
own.propagate = False
own.addHandler(logging.StreamHandler())
own.setLevel(logging.DEBUG)
own.error("wrong %d arguments", "for it")
try:
    1 / 0
except ZeroDivisionError:
    own.exception("caught")
"""
            + CONNECT
        )

        backend.upgraded(env_py.format(before="pass", after="pass", options=""))

        assert backend.output("own") == [
            ("ERROR", "wrong %d arguments ('for it',)"),
            ("ERROR", "caught: ZeroDivisionError: division by zero"),
        ]

    def test_whatever_is_printed_is_a_line_of_json_without_the_password(self, backend: Backend) -> None:
        env_py = connecting(
            before="""
    print(os.environ["DATABASE_URL"], os.environ, engine.url, repr(engine.url), sep="\\n")
    print(engine.url.render_as_string(hide_password=False), engine.url.password, file=sys.stderr)
    print("unfinished", end="")
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.buffer.write("caf\u00e9\\n".encode())
    import faulthandler
    faulthandler.enable()
    print("no end", end="")
    os.write(1, b"past Python\\n")
    import subprocess
    subprocess.run(["sh", "-c", "echo a program; echo its error >&2; echo $DATABASE_URL"])
    import warnings
    warnings.warn("mind this")
"""
        )

        backend.upgraded(env_py)

        # That no line holds the password and all are JSON is what the runner looks at.
        assert backend.output("stdout")[0] == (
            "INFO",
            "postgresql+psycopg2://***@" + backend.output("stdout")[0][1][26:],
        )
        assert backend.output("stdout")[-1] == ("INFO", "no end")
        assert ("INFO", "unfinishedcafé") in backend.output("stdout")
        assert {("INFO", "past Python"), ("INFO", "a program"), ("INFO", "its error")} <= set(backend.output("console"))
        assert "UserWarning: mind this" in str(backend.output("stderr"))
