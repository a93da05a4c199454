"""A real PgBouncer in front of a test's database."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from localcloud import account, ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

    from localcloud.postgres import Database

_READY_WITHIN_S = 20
# Debian puts it where only root looks for programs.
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))


def program() -> str | None:
    """Return where PgBouncer is on this machine, None if it is not installed."""
    return shutil.which("pgbouncer", path=_PLACES)


@contextmanager
def pgbouncer(database: Database, mode: str, **settings: object) -> Iterator[int]:
    """Run PgBouncer in a pool mode until the end of the context; yield its port. It has no TLS."""
    found = program()
    assert found, "pgbouncer is not installed"
    port = ports.choose(None)
    runs_as = account.unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    try:
        _configure(folder, database, port, {"pool_mode": mode, **settings})
        if runs_as:
            for path in (folder, *folder.iterdir()):
                os.chown(path, runs_as.user, runs_as.group)
        with (folder / "log").open("wb") as log:
            command = [found, "-q", str(folder / "pgbouncer.ini")]
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd="/", **(runs_as.as_process() if runs_as else {})
            )
        try:
            _wait_until_ready(database, port, folder)
            yield port
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder)


def connect(database: Database, port: int) -> connection:
    """Connect through the pooler, in autocommit, as the application does."""
    opened: connection = psycopg2.connect(
        host="127.0.0.1",
        port=port,
        dbname=database.name,
        user=database.user,
        password=database.password,
        sslmode="disable",
        connect_timeout=10,
    )
    opened.autocommit = True
    return opened


def _configure(folder: Path, database: Database, port: int, settings: dict[str, object]) -> None:
    doubled = database.password.replace('"', '""')
    (folder / "users.txt").write_text(f'"{database.user}" "{doubled}"\n')
    options = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "users.txt",
        "server_tls_sslmode": "require",
        **settings,
    }
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{database.name} = host={database.host} port={database.port}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in options.items())
    )


def _wait_until_ready(database: Database, port: int, folder: Path) -> None:
    until = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            with closing(connect(database, port)) as opened, opened.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.OperationalError as error:
            assert time.monotonic() < until, f"{error}: {(folder / 'log').read_text(errors='replace')[-500:]}"
            time.sleep(0.05)
        else:
            return
