"""Fixtures: a PostgreSQL and an AWS for the test run, and a new database for every test that needs one."""

from __future__ import annotations

import functools
import gc
import os
import secrets
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import botocore.session
import psycopg2
import pytest
from botocore.loaders import create_loader
from hypothesis import settings
from psycopg2 import sql

from localcloud import binaries, testing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from psycopg2.extensions import connection, cursor

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server

ROOT = Path(__file__).resolve().parents[1]

# Everything that a URL, a connection string, a config file's interpolation or a shell may trip over.
_AWKWARD = "@:/%?#[]&= \"'\\é"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stress", action="store_true", help="run what is repeated in its full size, not as a sample")
    parser.addoption(
        "--postgres", type=int, choices=binaries.VERSIONS, default=binaries.DEFAULT_VERSION, help="the server's version"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark `stress`, and choose where tests write.

    Temporary folders are in memory, if possible. Tools that write to the home folder get a home in the checkout, before
    anything is imported: the CDK's library is such a tool, in a process that starts with its import.
    """
    if memory := testing.memory():
        os.environ.setdefault("TMPDIR", str(memory))
        tempfile.tempdir = None  # read it again
    config.addinivalue_line("markers", "stress: one more of a kind, for --stress only")
    config.addinivalue_line(
        "markers", "sized: repeats what it does, with --stress more often; set by its fixtures and Hypothesis"
    )
    # A machine that is busy is no failure.
    settings.register_profile("ours", deadline=None, max_examples=100 if config.getoption("stress") else 30)
    settings.load_profile("ours")
    home = ROOT / ".local" / "test" / "home"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(home)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Return two workers more than processors: tests spend a third of their time waiting."""
    processors = yield
    return processors + 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that repeat or measure something, and deselect the ones that only `make stress` runs."""
    for item in items:
        generates = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if generates or {"rounds", "figure"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("sized")
    if not config.getoption("stress"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("stress")])
        items[:] = [item for item in items if not item.get_closest_marker("stress")]


def pytest_collection_finish() -> None:
    """Exclude the imported modules from garbage collection, which would scan them again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the measurements of all workers' tests."""
    if config.getoption("stress"):
        terminalreporter.section("figures")
        for reports in terminalreporter.stats.values():
            for report in reports:
                for name, value in (
                    getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ()
                ):
                    if name == "figure":
                        terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Return a size: that of the sample, or with --stress the full one."""
    stress = request.config.getoption("stress")
    return lambda sample, full: full if stress else sample


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that records a measurement for the summary of `make stress`."""
    return lambda text: record_property("figure", text)


@pytest.fixture(scope="session", autouse=True)
def _no_aws_settings() -> Iterator[None]:
    """Remove the developer's AWS account and profile from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session", autouse=True)
def _aws_is_read_once() -> Iterator[None]:
    """Share the list and the parsed descriptions of AWS's services between all sessions of boto3 in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(create_loader))
        yield


@pytest.fixture(scope="session")
def shared_run(testrun_uid: str) -> Iterator[Path]:
    """The folder that all workers of this run of pytest share."""
    with testing.shared_run(ROOT, testrun_uid) as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres_server(shared_run: Path, pytestconfig: pytest.Config) -> Server:
    """The run's PostgreSQL server, with its superuser."""
    return testing.start_postgres(ROOT, shared_run, version=pytestconfig.getoption("--postgres"))


@pytest.fixture(scope="session")
def emulator(shared_run: Path) -> Emulator:
    """The run's AWS emulator."""
    return testing.start_emulator(ROOT, shared_run)


@functools.cache
def _session(server: Server) -> connection:
    return server.connect()


def _superuser(server: Server) -> cursor:
    """Return a cursor of this worker's session as the superuser. To open one takes as long as to make a database."""
    try:
        opened = _session(server).cursor()
        opened.execute("SELECT")
    except psycopg2.Error:  # the server was restarted
        _session.cache_clear()
        opened = _session(server).cursor()
    return opened


@pytest.fixture
def database(postgres_server: Server) -> Iterator[Database]:
    """A new database and the ordinary role that owns it, with a password that appears nowhere by chance."""
    name = f"test_{secrets.token_hex(6)}"
    made = postgres_server.database(name, f"{name}_owner", f"{secrets.token_urlsafe(12)}{_AWKWARD}")
    owner, database = sql.Identifier(made.user), sql.Identifier(name)
    superuser = _superuser(postgres_server)
    superuser.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(owner, sql.Literal(made.password)))
    # In memory and without fsync, copying files takes a third of the processor time of logging their content.
    is_new = superuser.connection.server_version >= 150000
    strategy = sql.SQL(" STRATEGY file_copy" if is_new else "")
    superuser.execute(sql.SQL("CREATE DATABASE {} OWNER {}{}").format(database, owner, strategy))
    if not is_new:
        # PostgreSQL 13 and 14 have no other strategy, and let every role create in the schema public.
        with closing(postgres_server.connect(name)) as opened, opened.cursor() as changing:
            changing.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(owner))
            changing.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    superuser.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    yield made
    superuser = _superuser(postgres_server)
    superuser.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
    superuser.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(owner))
