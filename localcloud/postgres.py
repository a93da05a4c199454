"""PostgreSQL on this machine. Like a server in the cloud, it accepts only TLS and passwords."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

from localcloud import account, binaries, daemon, files, locks, ports
from localcloud.errors import LocalCloudError, readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import trustme
    from psycopg2.extensions import connection

HOST = "localhost"
SUPERUSER = "postgres"

# Replaying the log after a hard kill takes longer than any ordinary start.
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_PORT_ATTEMPTS = 5
# The first version with a locale provider of its own.
_BUILTIN_LOCALE = 17

# PostgreSQL fails if its only address is taken. If it also listened on ::1, it would only warn.
_ACCESS = """\
hostssl all all 127.0.0.1/32 scram-sha-256
"""
# For a program without OpenSSL. The server listens on this machine only, in any case.
_ACCESS_WITHOUT_TLS = """\
host all all 127.0.0.1/32 scram-sha-256
"""

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
max_prepared_transactions = 10
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_min_protocol_version = 'TLSv1.2'
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
"""

_FORGETFUL = """
fsync = off
full_page_writes = off
autovacuum = off
"""


@dataclass(frozen=True)
class Database:
    """A database and the one role that owns it."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)
    ca: Path
    sslmode: str = "verify-full"

    @property
    def url(self) -> str:
        """A SQLAlchemy address that verifies the server; it contains the password."""
        return (
            f"postgresql+psycopg2://{quote(self.user, safe='')}:{quote(self.password, safe='')}"
            f"@{self.host}:{self.port}/{quote(self.name, safe='')}"
            f"?sslmode={self.sslmode}&sslrootcert={quote(str(self.ca), safe='')}"
        )

    @property
    def secret(self) -> dict[str, str | int]:
        """Return the content of a secret in the form of Amazon RDS."""
        return {
            "engine": "postgres",
            "host": self.host,
            "port": self.port,
            "dbname": self.name,
            "username": self.user,
            "password": self.password,
        }

    def connect(self) -> connection:
        """Open a verified connection in autocommit mode; the caller closes it."""
        opened = psycopg2.connect(
            host=self.host,
            port=self.port,
            dbname=self.name,
            user=self.user,
            password=self.password,
            sslmode=self.sslmode,
            sslrootcert=str(self.ca),
            sslcertmode="disable",  # a certificate in the developer's home folder is for other servers
            connect_timeout=10,
        )
        opened.autocommit = True
        return opened


@dataclass(frozen=True)
class Server:
    """A running server. `ca` is the file with the authority that signed its certificate."""

    host: str
    port: int
    ca: Path
    user: str
    password: str = field(repr=False)
    directory: Path
    sslmode: str = "verify-full"

    def database(self, name: str, user: str | None = None, password: str | None = None) -> Database:
        """Return the address of one of its databases, for a role: by default the superuser."""
        return Database(self.host, self.port, name, user or self.user, password or self.password, self.ca, self.sslmode)

    def connect(self, database: str = "postgres") -> connection:
        """Open a connection as the superuser, in autocommit mode; the caller closes it."""
        return self.database(database).connect()


@dataclass(frozen=True)
class _Record:
    port: int | None
    password: str = field(repr=False)


def start(
    root: Path,
    directory: Path,
    *,
    durable: bool = True,
    version: int = binaries.DEFAULT_VERSION,
    needs_tls: bool = True,
) -> Server:
    """Start the server in `directory`, or return the one that runs there. Make its data on the first start.

    Args:
        root: the checkout, for PostgreSQL's programs in it.
        directory: the server's folder, with its data.
        durable: False is faster and loses data if the machine crashes, for tests. Then nothing changes plans or takes
            locks by itself, either. It applies when the data is made.
        version: PostgreSQL's major version, one of `binaries.VERSIONS`.
        needs_tls: False lets clients in without TLS, too; counts when first made.

    Raises:
        LocalCloudError: it could not be made or started. The text has the reason.

    """
    process = _process(directory)
    with readable(f"PostgreSQL could not be started in {directory}"), locks.exclusive(process.guard):
        if daemon.is_running(process):
            # The process that started it may have been killed before it was ready.
            record = _recall(directory)
            if record and record.port and daemon.wait_until_ready(process, _probe(directory, record), _START_SECONDS):
                return _server(directory, record)
        programs = binaries.prepare(root, version)
        cluster = account.usable_folder(root / ".local", directory) / "cluster"
        record = _recall(directory)
        if record is None or not (cluster / "PG_VERSION").exists():
            record = _make(programs, directory, cluster, durable=durable, version=version, needs_tls=needs_tls)
        # No server runs. With the file of a killed one, PostgreSQL might take another program for it.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        server = _launch(programs, directory, cluster, record)
        if not durable:
            # The first session of a database writes a cache of its catalog. The copies of template1 then have it, too.
            server.connect("template1").close()
        return server


def stop(directory: Path) -> None:
    """Stop the server in `directory`, if it runs. Its data stays."""
    process = _process(directory)
    if process.directory.exists():
        with locks.exclusive(process.guard):
            daemon.stop(process, signal.SIGINT, _STOP_SECONDS)  # PostgreSQL ends all sessions and stops.


def remove(root: Path, directory: Path) -> None:
    """Stop the server in `directory` and remove its data."""
    stop(directory)
    account.remove(root / ".local", directory)


def is_running(directory: Path) -> bool:
    """Return whether the server in `directory` runs."""
    return daemon.is_running(_process(directory))


def create_role(server: Server, name: str, password: str) -> None:
    """Make a role that may only log in. If it exists, set its password."""
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,))
        verb = sql.SQL("CREATE" if cursor.fetchone() is None else "ALTER")
        # Only the verifier is sent, because the server logs statements that fail.
        verifier = encrypt_password(password, name, opened, "scram-sha-256")
        cursor.execute(
            sql.SQL("{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                verb, sql.Identifier(name), sql.Literal(verifier)
            )
        )


def create_database(server: Server, name: str, owner: str) -> None:
    """Make a database to which only its owner may connect. Leave one that exists unchanged."""
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is None:
            identifier = sql.Identifier(name)
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(identifier, sql.Identifier(owner)))
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(identifier))


@dataclass(frozen=True)
class Roles:
    """Who does what with a database; docs/security.md has the reasons. Only the owner cannot log in."""

    owner: str
    migrator: str
    application: str


def lay_out_roles(server: Server, name: str, roles: Roles) -> None:
    """Let the owner own a database and all in it, the migrator act as the owner, and the application use the tables.

    The migrator and the application must exist. What the migrator owned before belongs to the owner from now on.
    """
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (roles.owner,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(roles.owner)))
    names = {key: sql.Identifier(value) for key, value in (*asdict(roles).items(), ("database", name))}
    with closing(server.connect(name)) as opened, opened.cursor() as cursor:
        cursor.execute(sql.SQL(_LAYOUT).format(**names))


_LAYOUT = """
GRANT {owner} TO {migrator};
REASSIGN OWNED BY {migrator} TO {owner};
ALTER DATABASE {database} OWNER TO {owner};
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
GRANT CONNECT ON DATABASE {database} TO {migrator}, {application};
ALTER ROLE {migrator} IN DATABASE {database} SET role = {owner};
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE ON SEQUENCES TO {application};
"""


def drop_database(server: Server, name: str, owner: str) -> None:
    """Remove a database and its owner, if they exist, and end the sessions in it."""
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        cursor.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(owner)))


def _process(directory: Path) -> daemon.Daemon:
    return daemon.Daemon("PostgreSQL", directory)


def _server(directory: Path, record: _Record) -> Server:
    if record.port is None:
        raise LocalCloudError(f"PostgreSQL in {directory} has no port on record; run `python -m localcloud clean`.")
    return Server(HOST, record.port, directory / "ca.crt", SUPERUSER, record.password, directory)


def _recall(directory: Path) -> _Record | None:
    try:
        return _Record(**json.loads((directory / "server.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _remember(directory: Path, record: _Record) -> None:
    files.write_private(directory / "server.json", json.dumps(asdict(record)))


def _make(programs: Path, directory: Path, cluster: Path, *, durable: bool, version: int, needs_tls: bool) -> _Record:
    """Make the data folder `cluster`. It does not exist until it is complete."""
    record = _Record(port=None, password=secrets.token_urlsafe(24))
    making = cluster.with_name("cluster.making")
    for leftover in (making, cluster):
        if leftover.exists():
            shutil.rmtree(leftover)
    making.mkdir(mode=0o700)
    _give_away(making)
    _initdb(programs, making / "data", record.password, version)
    import trustme  # noqa: PLC0415 - it loads slowly, and only a new server needs it

    authority = trustme.CA(organization_name="local PostgreSQL")
    certificate = authority.issue_cert("localhost", "127.0.0.1", "::1")
    _configure(making / "data", certificate, durable=durable, needs_tls=needs_tls)
    authority.cert_pem.write_to_path(directory / "ca.crt")
    _remember(directory, record)
    (making / "data").rename(cluster)
    shutil.rmtree(making)
    return record


def _initdb(programs: Path, data: Path, password: str, version: int) -> None:
    password_file = data.with_name("password")
    files.write_private(password_file, password)
    _give_away(password_file)
    runs_as = account.unprivileged()
    made = subprocess.run(
        [
            programs / "initdb",
            f"--pgdata={data}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same order of texts on every platform.
            *(("--locale-provider=builtin", "--locale=C.UTF-8") if version >= _BUILTIN_LOCALE else ("--locale=C",)),
            "--lc-collate=C",
            "--lc-ctype=C",
            "--lc-messages=C",
            "--no-sync",
        ],
        env=_environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **(runs_as.as_process() if runs_as else {}),
    )
    if made.returncode != 0:
        errors = [line for line in (made.stdout + made.stderr).splitlines() if "error" in line.lower()]
        reason = " | ".join(errors) or f"{(made.stdout + made.stderr).strip()[-500:]} (exit code {made.returncode})"
        raise LocalCloudError(f"PostgreSQL's data could not be made in {data.parent}: {reason}")


def _configure(data: Path, certificate: trustme.LeafCert, *, durable: bool, needs_tls: bool) -> None:
    (data / "pg_hba.conf").write_text(_ACCESS if needs_tls else _ACCESS_WITHOUT_TLS)
    with (data / "postgresql.conf").open("a") as file:
        file.write(_SETTINGS if durable else _SETTINGS + _FORGETFUL)
    certificate.cert_chain_pems[0].write_to_path(data / "server.crt")
    files.write_private(data / "server.key", certificate.private_key_pem.bytes().decode())
    for name in ("server.crt", "server.key"):
        _give_away(data / name)


def _launch(programs: Path, directory: Path, cluster: Path, record: _Record) -> Server:
    process = _process(directory)
    for _ in range(_PORT_ATTEMPTS):
        attempt = _Record(ports.choose(record.port), record.password)
        _remember(directory, attempt)
        command = [str(programs / "postgres"), "-D", str(cluster), "-p", str(attempt.port)]
        daemon.launch(process, command, _environment(), account.unprivileged())
        if daemon.wait_until_ready(process, _probe(directory, attempt), _START_SECONDS):
            return _server(directory, attempt)
        if "Address already in use" not in process.log.read_text(errors="replace"):
            raise LocalCloudError(f"PostgreSQL ended while starting. {daemon.log_tail(process)}")
    raise LocalCloudError(f"PostgreSQL lost its port to another program {_PORT_ATTEMPTS} times; try again.")


def _probe(directory: Path, record: _Record) -> Callable[[], str | None]:
    server = _server(directory, record)

    def obstacle() -> str | None:
        try:
            server.connect().close()
        except psycopg2.OperationalError as error:
            return str(error)
        return None

    return obstacle


def _environment() -> dict[str, str]:
    # The developer's PG* and LC_* variables are meant for other servers.
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _give_away(path: Path) -> None:
    runs_as = account.unprivileged()
    if runs_as:
        os.chown(path, runs_as.user, runs_as.group)
