"""From the secret to a session: the errors on the way, and their messages."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING

import psycopg2.extensions
import pytest
import trustme

from localcloud.clients import client
from tests.support.bystander import execute
from tests.support.proxy import Proxy, closed_port
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", [Rev("a1")])


def set_password(server: Server, user: str, password: str) -> None:
    connection = server.connect()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER ROLE {psycopg2.extensions.quote_ident(user, connection)} PASSWORD %s", (password,))
    connection.close()


def test_a_wrong_password_is_refused_after_reading_the_secret_again(
    runner: Runner, database: Database, tree: Path, put_secret: Callable[[object], str]
) -> None:
    secret = put_secret({**database.secret, "password": f"{database.password}-old"})

    answer = runner.invoke(tree, DB_SECRET_ID=secret)

    assert answer.error_type == "AuthenticationFailed"
    assert database.user in answer.message
    assert f"{database.host}:{database.port}" in answer.message


@pytest.mark.stress
def test_a_rotated_password_is_picked_up_by_a_warm_function(
    runner: Runner, database: Database, tree: Path, emulator: Emulator, postgres_server: Server
) -> None:
    function = runner.start(tree)
    assert function.invoke().error_type is None
    rotated = f"{database.password}-rotated"
    set_password(postgres_server, database.user, rotated)
    client(emulator, "secretsmanager").put_secret_value(
        SecretId=runner.environment["DB_SECRET_ID"], SecretString=json.dumps({**database.secret, "password": rotated})
    )

    assert function.invoke().error_type is None


def test_a_secret_that_is_not_there(runner: Runner, tree: Path) -> None:
    answer = runner.invoke(tree, DB_SECRET_ID="no/such/secret")

    assert answer.error_type == "SecretUnavailable"
    assert "no/such/secret" in answer.message
    assert "DB_SECRET_ID" in answer.message


def test_a_secrets_manager_that_cannot_be_reached_fails_soon_and_names_the_endpoint(runner: Runner, tree: Path) -> None:
    with Proxy(("127.0.0.1", 9), fault="blackhole") as proxy:
        started = time.monotonic()
        answer = runner.invoke(tree, AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}")
        waited = time.monotonic() - started

    assert answer.error_type == "SecretUnavailable"
    assert "interface endpoint for secretsmanager" in answer.message
    assert waited < 15


@pytest.mark.stress
def test_a_secret_without_the_host(
    runner: Runner, database: Database, tree: Path, put_secret: Callable[[object], str]
) -> None:
    secret = put_secret({"username": database.user, "password": database.password})

    refused = runner.invoke(tree, DB_SECRET_ID=secret)
    accepted = runner.invoke(
        tree,
        DB_SECRET_ID=secret,
        DB_HOST=database.host,
        DB_PORT=str(database.port),
        DB_NAME=database.name,
    )

    assert refused.error_type == "SecretMalformed"
    assert "DB_HOST" in refused.message
    assert accepted.error_type is None


@pytest.mark.stress
def test_a_secret_that_is_a_connection_string(
    runner: Runner, database: Database, tree: Path, put_secret: Callable[[object], str]
) -> None:
    url = database.url.replace("postgresql+psycopg2", "postgresql")

    assert runner.invoke(tree, DB_SECRET_ID=put_secret(url)).error_type is None
    assert runner.invoke(tree, DB_SECRET_ID=put_secret({"DbConnStr": url})).error_type is None


def test_nobody_listens(runner: Runner, tree: Path) -> None:
    port = closed_port()

    answer = runner.invoke(tree, DB_HOST="127.0.0.1", DB_PORT=str(port), CONNECT_TIMEOUT_S="1")

    assert answer.error_type == "DatabaseUnavailable"
    assert f"127.0.0.1:{port} refused the connection" in answer.message


def test_a_name_that_does_not_resolve(runner: Runner, tree: Path) -> None:
    answer = runner.invoke(tree, DB_HOST="no-such-host.invalid", CONNECT_TIMEOUT_S="1")

    assert answer.error_type == "DatabaseUnavailable"
    assert "'no-such-host.invalid' could not be resolved" in answer.message


def test_a_server_that_never_answers(runner: Runner, database: Database, tree: Path) -> None:
    with Proxy((database.host, database.port), fault="blackhole") as proxy:
        answer = runner.invoke(tree, DB_HOST="127.0.0.1", DB_PORT=str(proxy.port), CONNECT_TIMEOUT_S="3")

    assert answer.error_type == "DatabaseUnavailable"
    assert "accepts connections but PostgreSQL does not answer" in answer.message


def test_a_certificate_for_another_host_name(runner: Runner, database: Database, tree: Path) -> None:
    with Proxy((database.host, database.port), host="127.0.0.2") as proxy:
        answer = runner.invoke(tree, DB_HOST="127.0.0.2", DB_PORT=str(proxy.port))

    assert answer.error_type == "DatabaseUnavailable"
    assert "127.0.0.2" in answer.message
    assert "host name" in answer.message


def test_a_certificate_of_another_authority(runner: Runner, tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)

    answer = runner.invoke(tree, DB_SSLROOTCERT=str(other))

    assert answer.error_type == "DatabaseUnavailable"
    assert "certificate verify failed" in answer.message
    assert "DB_SSLROOTCERT" in answer.message


def test_the_packaged_authorities_are_those_of_rds(runner: Runner, tree: Path) -> None:
    answer = runner.invoke(tree, DB_SSLROOTCERT=None)

    assert answer.error_type == "DatabaseUnavailable"
    assert "rds-ca-bundle.pem" in answer.message


def test_a_server_without_tls(runner: Runner, database: Database, tree: Path) -> None:
    with Proxy((database.host, database.port), fault="no_tls") as proxy:
        answer = runner.invoke(tree, DB_HOST="127.0.0.1", DB_PORT=str(proxy.port))

    assert answer.error_type == "DatabaseUnavailable"
    assert "offers no TLS" in answer.message


def test_a_database_that_does_not_exist(runner: Runner, tree: Path) -> None:
    answer = runner.invoke(tree, DB_NAME="nowhere")

    assert answer.error_type == "ConfigurationError"
    assert "there is no database 'nowhere'" in answer.message


def test_a_read_only_database(runner: Runner, database: Database, tree: Path, postgres_server: Server) -> None:
    connection = postgres_server.connect()
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    connection.close()

    function = runner.start(tree)

    answer = function.invoke()

    assert answer.error_type == "ConfigurationError"
    assert "read-only" in answer.message
    report = function.invoke({"action": "doctor"}).payload
    assert [step["step"] for step in report["steps"] if step["ok"] is False] == ["server"]


def test_a_database_that_is_read_only_by_default_is_migrated_by_an_env_py_that_turns_it_off(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    execute(database, f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    turns_it_off = (
        "        connection.exec_driver_sql('SET default_transaction_read_only = off'); connection.commit()\n"
    )
    env_py = ENV_PY.replace(
        "        context.configure(connection", f"{turns_it_off}        context.configure(connection"
    )
    assert env_py != ENV_PY
    tree = write_tree(tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=env_py)

    function = runner.start(tree)

    report = function.invoke({"action": "doctor"}).payload
    result = function.invoke().payload

    assert report["healthy"] is True, report
    assert result["revision"] == "a1"
    assert function.invoke().payload["applied"] == []


@pytest.mark.stress
@pytest.mark.parametrize(
    "old,new",
    [
        pytest.param(
            "poolclass=pool.NullPool", "execution_options={'postgresql_readonly': False}", id="an execution option"
        ),
        pytest.param(
            "    with connectable.connect() as connection:\n",
            "    import sqlalchemy\n"
            "    sqlalchemy.event.listen(\n"
            "        connectable, 'begin', lambda c: c.exec_driver_sql('SET TRANSACTION READ WRITE')\n    )\n"
            "    with connectable.connect() as connection:\n",
            id="SET TRANSACTION",
            marks=pytest.mark.stress,
        ),
        pytest.param(
            "poolclass=pool.NullPool",
            "connect_args={'options': '-c default_transaction_read_only=off'}",
            id="an option of the driver",
            marks=pytest.mark.stress,
        ),
    ],
)
def test_the_doctor_finds_that_env_py_turns_a_read_only_default_off_in_another_way(
    runner: Runner, database: Database, tmp_path: Path, old: str, new: str
) -> None:
    execute(database, f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    env_py = ENV_PY.replace(old, new)
    assert env_py != ENV_PY
    tree = write_tree(tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=env_py)
    function = runner.start(tree)

    report = function.invoke({"action": "doctor"}).payload

    assert report["healthy"] is True, report
    assert function.invoke().payload["revision"] == "a1"


def test_a_missing_setting_is_named(runner: Runner, tree: Path) -> None:
    answer = runner.invoke(tree, DB_SECRET_ID=None)

    assert answer.error_type == "ConfigurationError"
    assert "DB_SECRET_ID is not set" in answer.message


def test_packets_that_get_no_answer_fail_soon_and_name_the_security_group(runner: Runner, tree: Path) -> None:
    # A full queue of connections that nobody accepts: the kernel drops what comes next, as a security group would.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as queue:
        port = listener.getsockname()[1]
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(("127.0.0.1", port))
        started = time.monotonic()

        answer = runner.invoke(tree, DB_HOST="127.0.0.1", DB_PORT=str(port))

        waited = time.monotonic() - started
    assert answer.error_type == "DatabaseUnavailable"
    assert "security group" in answer.message
    assert waited < 15 + 5  # the cold start of a busy machine included


def test_an_iam_token_is_presented_as_the_password_and_never_shown(
    runner: Runner, database: Database, tree: Path, put_secret: Callable[[object], str]
) -> None:
    secret = put_secret({key: value for key, value in database.secret.items() if key != "password"})

    answer = runner.invoke(tree, DB_SECRET_ID=secret, DB_AUTH="iam")

    # This PostgreSQL knows nothing of IAM: it got a password, and it was wrong.
    assert answer.error_type == "AuthenticationFailed"
    assert all("X-Amz-Signature" not in line for line in runner.lines())
