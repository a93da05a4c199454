"""The forms of a secret, and that a secret never shows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.database.credential_store import parse_secret, sign_token
from lambda_migrate.invocation.errors import SecretMalformed
from lambda_migrate.invocation.settings import Settings

if TYPE_CHECKING:
    from lambda_migrate.database.credentials import Credentials

SETTINGS = Settings(stage="dev", secret_id="app/db")
RDS = {
    "engine": "postgres",
    "username": "app",
    "password": "pa ss:/@%w'\"\\ö",
    "host": "db.example",
    "port": 5433,
    "dbname": "shop",
}
PASSWORDS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1)


def parse(secret: object, settings: Settings = SETTINGS) -> Credentials:
    return parse_secret(secret if isinstance(secret, str) else json.dumps(secret), settings)


def address(credentials: Credentials) -> tuple[str, str, str, int, str]:
    return (
        credentials.user, credentials.password, credentials.host, credentials.port, credentials.database,
    )  # fmt: skip


URL = f"postgresql://app:{quote(str(RDS['password']), safe='')}@db.example:5433/shop"


@pytest.mark.parametrize(
    "secret",
    [
        RDS,
        {**RDS, "port": "5433"},
        {**RDS, "engine": "aurora-postgresql", "dbClusterIdentifier": "x", "masterarn": "arn:aws:rds:..."},
        {key: value for key, value in RDS.items() if key != "engine"},
        URL,
        f"{URL}?sslmode=require&application_name=x",
        URL.replace("postgresql://", "postgres://"),
        URL.replace("postgresql://", "postgresql+asyncpg://"),
        {"DbConnStr": URL},
        {"DATABASE_URL": URL},
        {"url": URL},
    ],
)
def test_every_form_gives_the_same_address(secret: object) -> None:
    assert address(parse(secret)) == ("app", RDS["password"], "db.example", 5433, "shop")


def test_a_password_pasted_into_a_url_as_it_is() -> None:
    assert parse("postgresql://app:p@ss/w#rd?:x@db.example:5433/shop").password == "p@ss/w#rd?:x"


def test_a_url_without_a_port_means_the_default_port() -> None:
    assert parse("postgresql://app:x@db.example/shop").port == 5432


def test_an_ipv6_address() -> None:
    credentials = parse("postgresql://app:x@[::1]:5433/shop")
    assert credentials.host == "::1"
    assert "@[::1]:5433/" in credentials.url("postgresql")


def test_settings_fill_in_what_a_secret_of_rds_itself_lacks() -> None:
    settings = Settings(stage="dev", secret_id="app/db", host="h", port=1, database="d")
    assert address(parse({"username": "u", "password": "p"}, settings)) == ("u", "p", "h", 1, "d")


def test_settings_override_what_the_secret_holds() -> None:
    settings = Settings(stage="dev", secret_id="app/db", host="replica.example", user="migrator")
    credentials = parse(RDS, settings)
    assert (credentials.host, credentials.user, credentials.port) == ("replica.example", "migrator", 5433)


@pytest.mark.parametrize(
    "secret,named",
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("hunter2-hunter2", "no connection string"),
        ("mysql://app:hunter2@h/db", "not a PostgreSQL connection string"),
        ("postgresql://h/db", "no key username"),
        ("postgresql://app@h/db", "no key password"),
        ("postgresql://app:hunter2@/db", "no key host"),
        ("postgresql://app:hunter2@h:port/db", "key port"),
        ("postgresql://app:hunter2@h", "no key dbname"),
        ('{"username": "hunter2"', "broken at line 1"),
        ('["hunter2"]', "must be a JSON object"),
        ('"hunter2"', "must be a JSON object"),
        ("{}", "no key host"),
        ({**RDS, "engine": "mysql"}, "engine"),
        ({**RDS, "password": ""}, "no key password"),
        ({**RDS, "password": None}, "no key password"),
        ({**RDS, "password": 12345678}, "key password must be text"),
        ({**RDS, "password": "hunter2\x00"}, "NUL"),
        ({**RDS, "host": ["hunter2"]}, "key host must be text"),
        ({**RDS, "port": 0}, "key port"),
        ({**RDS, "port": True}, "key port"),
        ({**RDS, "port": "hunter2"}, "key port"),
        ({"url": {"hunter2": 1}}, "key url must be"),
        ({"DbConnStr": "hunter2"}, "key DbConnStr is no connection string"),
    ],
)
def test_a_malformed_secret_names_the_key_and_never_a_value(secret: object, named: str) -> None:
    with pytest.raises(SecretMalformed) as refused:
        parse(secret)
    assert named in str(refused.value)
    assert "secret app/db" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_missing_key_says_where_else_it_can_be_given() -> None:
    with pytest.raises(SecretMalformed, match="set DB_NAME on the function"):
        parse({key: value for key, value in RDS.items() if key != "dbname"})


def test_credentials_do_not_show_their_password() -> None:
    assert "pa ss" not in repr(parse(RDS))


def test_another_secret_than_the_stages_own_speaks_for_itself() -> None:
    settings = Settings(stage="dev", secret_id="tenant", secret_first=True, host="stage.example", database="stage")
    credentials = parse({key: value for key, value in RDS.items() if key != "dbname"}, settings)
    assert (credentials.host, credentials.database) == ("db.example", "stage")


def test_a_target_database_overrides_everything() -> None:
    settings = Settings(stage="dev", secret_id="app/db", database="stage", target_database="tenant")
    assert parse(RDS, settings).database == "tenant"


def test_an_iam_token_is_for_the_user_and_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    iam = replace(SETTINGS, auth="iam")

    token = sign_token(parse({key: value for key, value in RDS.items() if key != "password"}, iam))

    assert token.startswith("db.example:5433/?Action=connect&DBUser=app&")
    assert "eu-west-1" in token


@given(PASSWORDS)
def test_any_password_survives_the_way_to_env_py(password: str) -> None:
    url = sqlalchemy.make_url(parse({**RDS, "password": password}).url("postgresql+psycopg2"))
    assert url.password == password


@given(st.text() | st.dictionaries(st.sampled_from([*RDS, "url", "DbConnStr"]), st.text() | st.integers()))
def test_whatever_a_secret_holds_is_an_address_or_malformed(secret: object) -> None:
    try:
        parse(secret)
    except SecretMalformed as refused:
        assert "\n" not in str(refused)
