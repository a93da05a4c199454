"""The local servers behave like those of AWS."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg2
import pytest
import sqlalchemy
import trustme

from localcloud import account, cloud, daemon, emulator, postgres, testing
from localcloud.errors import LocalCloudError
from tests.support.bystander import query
from tests.support.processes import killing
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_lambda.type_defs import FunctionCodeTypeDef
    from mypy_boto3_secretsmanager import SecretsManagerClient

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server

ROOT = Path(__file__).resolve().parents[2]

BOOTSTRAP = """\
#!/bin/sh
cd "$LAMBDA_TASK_ROOT" && exec python3 -m awslambdaric "$_HANDLER"
"""

FUNCTION = """\
import importlib.util, os, socket, sys

alive = socket.create_server(("127.0.0.1", 0))

class Refused(Exception):
    pass

def handler(event, context):
    if event.get("refuse"):
        raise Refused("as asked")
    return {
        "port": alive.getsockname()[1],
        "prefix": sys.prefix,
        "environment": dict(os.environ),
        "found": [name for name in event["modules"] if importlib.util.find_spec(name)],
    }
"""


@pytest.fixture
def own_server(shared_run: Path) -> Iterator[Server]:
    server = testing.start_postgres(ROOT, shared_run, secrets.token_hex(4))
    yield server
    postgres.remove(ROOT, server.directory)


@pytest.fixture
def own_emulator(shared_run: Path) -> Iterator[Emulator]:
    started = testing.start_emulator(ROOT, shared_run, secrets.token_hex(4))
    yield started
    emulator.remove(started.directory)


@pytest.fixture
def checkout(shared_run: Path) -> Iterator[Path]:
    """A checkout with this one's programs and its own servers."""
    root = shared_run / secrets.token_hex(4)
    (root / ".local").mkdir(parents=True)
    (root / "node_modules").symlink_to(ROOT / "node_modules")
    for name in ("ministack", "runtime"):
        (root / ".local" / name).symlink_to(ROOT / ".local" / name)
    yield root
    cloud.clean(root)


# --- PostgreSQL ---


def test_url_and_connect_reach_the_same_database_as_its_owner(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url)
    with engine.connect() as session:
        by_url = session.execute(sqlalchemy.text("SELECT current_database(), current_user")).one()
    engine.dispose()
    assert query(database, "SELECT current_database(), current_user") == [tuple(by_url)]
    assert tuple(by_url) == (database.name, database.user)


def test_a_databases_owner_may_use_it_and_nothing_else(database: Database, postgres_server: Server) -> None:
    query(database, "CREATE TABLE mine (id int)")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(database, "CREATE ROLE another")
    postgres.create_role(postgres_server, f"{database.user}2", "p")
    postgres.create_database(postgres_server, f"{database.name}2", f"{database.user}2")
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        replace(database, name=f"{database.name}2").connect()
    postgres.drop_database(postgres_server, f"{database.name}2", f"{database.user}2")


def test_starting_postgres_twice_gives_the_running_server(postgres_server: Server, shared_run: Path) -> None:
    assert testing.start_postgres(ROOT, shared_run) == postgres_server


def test_connections_are_encrypted(database: Database) -> None:
    assert query(database, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]


def test_an_unencrypted_connection_is_refused(database: Database) -> None:
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        connect(database, sslmode="disable")


def test_another_authority_of_the_same_name_is_not_trusted(database: Database, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.crt"
    trustme.CA(organization_name="local PostgreSQL").cert_pem.write_to_path(wrong)
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        replace(database, ca=wrong).connect()


def test_the_certificate_is_for_this_host_only(database: Database) -> None:
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        connect(database, host="db.example.com", hostaddr="127.0.0.1")


def test_a_wrong_password_is_refused(database: Database) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        replace(database, password=f"{database.password}x").connect()


def test_a_password_shows_neither_in_the_servers_log_nor_in_a_traceback(
    database: Database, postgres_server: Server
) -> None:
    with pytest.raises(psycopg2.errors.ReservedName):
        postgres.create_role(postgres_server, "pg_reserved", database.password)
    log = (postgres_server.directory / "server.log").read_text(encoding="utf-8")
    assert "CREATE ROLE" in log
    assert database.password[:12] not in log + repr(database)
    assert postgres_server.password not in repr(postgres_server)


def test_postgres_keeps_its_data_through_kill_9(own_server: Server) -> None:
    query(own_server.database("postgres"), "CREATE TABLE kept AS SELECT 42 AS answer")
    process = daemon.Daemon("PostgreSQL", own_server.directory)
    os.kill(daemon.process_id(process), signal.SIGKILL)
    eventually(lambda: not daemon.is_running(process))
    # What a stranger's process looks like that got the same id after a reboot.
    (own_server.directory / "running.lock").write_text(f"{os.getppid()}\n")

    again = postgres.start(ROOT, own_server.directory)

    assert again == own_server  # the port included
    assert query(again.database("postgres"), "SELECT answer FROM kept") == [(42,)]


@pytest.mark.stress
def test_postgres_moves_if_its_port_is_taken(own_server: Server) -> None:
    query(own_server.database("postgres"), "CREATE TABLE kept ()")
    postgres.stop(own_server.directory)
    with socket.create_server(("127.0.0.1", own_server.port)):
        again = postgres.start(ROOT, own_server.directory)
    assert again.port != own_server.port
    query(again.database("postgres"), "TABLE kept")


@pytest.mark.stress
def test_data_half_made_is_made_again(shared_run: Path) -> None:
    directory = shared_run / "postgres" / secrets.token_hex(4)
    half = account.usable_folder(ROOT / ".local", directory) / "cluster.making"
    (half / "data").mkdir(parents=True)
    (half / "data" / "PG_VERSION").write_text("18\n")
    try:
        query(postgres.start(ROOT, directory).database("postgres"), "SELECT 1")
    finally:
        postgres.remove(ROOT, directory)


@pytest.mark.stress
def test_a_failed_start_has_its_reason_in_one_line(own_server: Server) -> None:
    postgres.stop(own_server.directory)
    settings = account.usable_folder(ROOT / ".local", own_server.directory) / "cluster" / "postgresql.conf"
    settings.write_text("max_connections = many\n")
    with pytest.raises(LocalCloudError, match='invalid value for parameter "max_connections": "many"') as refused:
        postgres.start(ROOT, own_server.directory)
    assert "\n" not in str(refused.value)


def test_the_error_of_a_missing_program_names_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(LocalCloudError, match="run `npm ci`"):
        postgres.start(tmp_path, tmp_path / "postgres")
    with pytest.raises(LocalCloudError, match="`make migrate` installs it"):
        emulator.start(tmp_path, tmp_path / "emulator")


@pytest.mark.skipif(os.geteuid() != 0, reason="everybody but root runs PostgreSQL as themselves, in place")
def test_a_folder_that_only_root_may_enter_is_replaced_by_one_that_postgres_may(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    local, directory = tmp_path / ".local", tmp_path / ".local" / "postgres"
    try:
        place = account.usable_folder(local, directory)
        assert tmp_path not in place.parents
        assert place == account.usable_folder(local, directory)
        as_account = account.unprivileged()
        assert as_account
        subprocess.run(["/bin/sh", "-c", 'cd "$1"', "sh", place], cwd="/", check=True, **as_account.as_process())
    finally:
        account.remove_outside(local)
    assert not place.exists()


# --- the emulator ---


def test_starting_the_emulator_twice_gives_the_running_one(emulator: Emulator, shared_run: Path) -> None:
    assert testing.start_emulator(ROOT, shared_run) == emulator


def test_two_emulators_do_not_know_each_other(emulator: Emulator, own_emulator: Emulator) -> None:
    name = secrets.token_hex(4)
    with closing(secrets_manager(emulator)) as one, closing(secrets_manager(own_emulator)) as other:
        one.create_secret(Name=name, SecretString="one")
        with pytest.raises(other.exceptions.ResourceNotFoundException):
            other.get_secret_value(SecretId=name)


def test_the_emulator_keeps_its_state_through_a_stop_on_another_port_too(own_emulator: Emulator) -> None:
    with closing(secrets_manager(own_emulator)) as client:
        client.create_secret(Name="kept", SecretString="through a stop")
    emulator.stop(own_emulator.directory)
    port = int(own_emulator.endpoint.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        again = emulator.start(ROOT, own_emulator.directory)
    assert again.endpoint != own_emulator.endpoint
    with closing(secrets_manager(again)) as client:
        assert client.get_secret_value(SecretId="kept")["SecretString"] == "through a stop"


def test_a_function_runs_under_the_runtime_alone_and_ends_with_the_emulator(own_emulator: Emulator) -> None:
    with closing(lambda_client(own_emulator)) as client:
        create_function(own_emulator, client, "probe")
        answer = invoke(client, "probe", {"modules": ["awslambdaric", "pydantic", "boto3", "lambda_migrate"]})
        error = invoke(client, "probe", {"refuse": True})

    assert answer["found"] == ["awslambdaric"]
    assert answer["prefix"] == str(ROOT / ".local" / "runtime")
    assert answer["environment"]["AWS_ENDPOINT_URL"] == own_emulator.endpoint
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"} & answer["environment"].keys()
    assert (error["errorType"], error["errorMessage"]) == ("Refused", "as asked")

    assert listens(answer["port"])
    emulator.stop(own_emulator.directory)
    eventually(lambda: not listens(answer["port"]))


def test_the_developers_own_aws_settings_do_not_get_through(emulator: Emulator) -> None:
    theirs = {"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "t", "AWS_CA_BUNDLE": "/ca", "HOME": "/home/me"}
    environment = emulator.environment({**theirs, "NO_PROXY": "intranet"})
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"} & environment.keys()
    assert environment["HOME"] == "/home/me"
    assert environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


# --- any daemon ---


def test_a_daemon_that_will_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    stubborn = daemon.Daemon("The stubborn one", tmp_path)
    daemon.launch(stubborn, ["/bin/sh", "-c", "trap '' TERM; echo deaf; sleep 60 & wait; sleep 60"], {}, None)
    eventually(lambda: stubborn.log.read_text(encoding="ascii") == "deaf\n")
    daemon.stop(stubborn, signal.SIGTERM, timeout=0.2)
    assert not daemon.is_running(stubborn)  # nor the child, which has inherited the lock


def test_the_error_of_a_daemon_that_cannot_start_contains_its_log(tmp_path: Path) -> None:
    absent = daemon.Daemon("The absent one", tmp_path)
    daemon.launch(absent, [tmp_path / "absent"], {}, None)
    eventually(lambda: not daemon.is_running(absent))
    assert "not found" in daemon.log_tail(absent) or "No such file" in daemon.log_tail(absent)


# --- both, and the test runs that share them ---


@pytest.mark.stress
def test_credentials_and_data_survive_down_and_not_clean(checkout: Path) -> None:
    first = cloud.up(checkout)
    query(first.database, "CREATE TABLE kept ()")
    assert cloud.up(checkout) == first
    cloud.down(checkout)
    assert cloud.status(checkout) == {"PostgreSQL": False, "AWS emulator": False}

    again = cloud.up(checkout)

    assert again == first
    query(again.database, "TABLE kept")
    cloud.clean(checkout)
    assert cloud.up(checkout).database.password != first.database.password


@pytest.mark.stress
def test_the_servers_of_a_killed_test_run_end_too() -> None:
    run = f"killed-{secrets.token_hex(4)}"
    folder = ROOT / ".local" / "test" / run
    code = f"""
import sys
from pathlib import Path
from localcloud import testing
with testing.shared_run(Path({str(ROOT)!r}), {run!r}) as folder:
    print(testing.start_postgres(Path({str(ROOT)!r}), folder).port, flush=True)
    sys.stdin.read()
"""
    with killing(
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    ) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        assert listens(port)
        clusters = (folder / "postgres").resolve(strict=True)
        process.kill()
    eventually(lambda: not folder.exists())
    assert not clusters.exists()
    assert not listens(port)


def connect(database: Database, **changes: str) -> None:
    arguments: dict[str, Any] = {
        "host": database.host,
        "port": str(database.port),
        "dbname": database.name,
        "user": database.user,
        "password": database.password,
        "sslmode": "verify-full",
        "sslrootcert": str(database.ca),
    }
    psycopg2.connect(**{**arguments, **changes}).close()


def secrets_manager(of: Emulator) -> SecretsManagerClient:
    return session(of).client("secretsmanager", endpoint_url=of.endpoint)


def lambda_client(of: Emulator) -> LambdaClient:
    return session(of).client("lambda", endpoint_url=of.endpoint)


def session(of: Emulator) -> boto3.Session:
    given = of.settings()
    return boto3.Session(
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        region_name=of.region,
    )


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def create_function(of: Emulator, client: LambdaClient, name: str) -> None:
    """Create a function as the CDK does, from an asset: the local cloud runs no other code."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        bootstrap = zipfile.ZipInfo("bootstrap")
        bootstrap.external_attr = 0o755 << 16
        archive.writestr(bootstrap, BOOTSTRAP)
        archive.writestr("function.py", FUNCTION)
    client.create_function(
        FunctionName=name,
        Runtime="provided.al2023",
        Handler="function.handler",
        Role="arn:aws:iam::000000000000:role/any",
        Code=asset(of, package.getvalue()),
        Timeout=20,
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name)


def asset(of: Emulator, content: bytes) -> FunctionCodeTypeDef:
    """Upload an asset as the CDK does."""
    bucket, key = f"cdk-hnb659fds-assets-000000000000-{of.region}", f"{hashlib.sha256(content).hexdigest()}.zip"
    with closing(session(of).client("s3", endpoint_url=of.endpoint)) as client:
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key=key, Body=content)
    return {"S3Bucket": bucket, "S3Key": key}


def invoke(client: LambdaClient, name: str, event: dict[str, object]) -> dict[str, Any]:
    answer: dict[str, Any] = json.load(client.invoke(FunctionName=name, Payload=json.dumps(event))["Payload"])
    return answer
