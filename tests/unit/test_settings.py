"""Environment variables: their defaults, their forms, and the errors of wrong ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.credential_store import parse_secret, read_secret
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import RDS_CA_BUNDLE, read_settings, secrets_of

if TYPE_CHECKING:
    from pathlib import Path

REQUIRED = {"STAGE": "dev", "DB_SECRET_ID": "app/db"}


def test_two_variables_are_enough() -> None:
    settings = read_settings(REQUIRED)

    assert (settings.stage, settings.secret_id) == ("dev", "app/db")
    assert (settings.sslmode, settings.sslrootcert) == ("verify-full", RDS_CA_BUNDLE)
    assert settings.url_variables == ("DATABASE_URL",)
    assert settings.driver == "postgresql+psycopg2"
    assert (settings.connect_timeout_s, settings.migration_lock_timeout_s) == (60, 300)
    assert (settings.lock_timeout_ms, settings.lock_retries) == (3000, 10)
    assert (settings.statement_timeout_ms, settings.deadline_reserve_ms) == (None, 10_000)
    assert settings.newer_database_ok is False
    assert settings.targets_allowed == {}


def test_the_packaged_certificate_authorities_are_there() -> None:
    assert "BEGIN CERTIFICATE" in RDS_CA_BUNDLE.read_text()


def test_an_empty_variable_counts_as_absent() -> None:
    assert read_settings({**REQUIRED, "DB_HOST": " ", "DB_PORT": ""}).host is None


def test_relative_paths_lie_in_the_package(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()

    settings = read_settings(
        {**REQUIRED, "DB_SSLROOTCERT": "ca.pem", "ALEMBIC_CONFIG": "db/alembic.ini"}, package_root=tmp_path
    )

    assert settings.sslrootcert == tmp_path / "ca.pem"
    assert settings.alembic_config == tmp_path / "backend" / "db" / "alembic.ini"


@pytest.mark.parametrize("name", ["STAGE", "DB_SECRET_ID"])
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"environment variable {name} is not set"):
        read_settings({other: value for other, value in REQUIRED.items() if other != name})


@pytest.mark.parametrize(
    "name,value",
    [
        ("DB_PORT", "0"),
        ("DB_PORT", "65536"),
        ("DB_PORT", "5432x"),
        ("DB_PORT", "\u0665"),
        ("DB_SSLMODE", "on"),
        ("DB_SSLROOTCERT", "no-such.pem"),
        ("DB_DRIVER", "mysql+pymysql"),
        ("DATABASE_URL_ENV", "A,,B"),
        ("DATABASE_URL_ENV", "1A"),
        ("ALEMBIC_X", "tenant=a"),
        ("ALEMBIC_X", '{"a=b": "x"}'),
        ("ALEMBIC_X", '{"tenant": "{schemata}"}'),
        ("DATABASE_ENV", '{"A": "{schema}"}'),
        ("DATABASE_ENV", "[]"),
        ("DATABASE_ENV", '{"A": 1}'),
        ("DATABASE_ENV", '{"A B": "x"}'),
        ("DATABASE_ENV", '{"A": "{pasword}"}'),
        ("CONNECT_TIMEOUT_S", "0"),
        ("CONNECT_TIMEOUT_S", "1m"),
        ("MIGRATION_LOCK_TIMEOUT_S", "-1"),
        ("LOCK_TIMEOUT_MS", "3s"),
        ("LOCK_RETRIES", "-1"),
        ("NEWER_DATABASE", "yes"),
        ("UNTRUSTED_SCHEMA", "error"),
        ("LOG_LEVEL", "verbose"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as refused:
        read_settings({**REQUIRED, name: value})
    assert "\n" not in str(refused.value)


def test_templates_never_show_in_an_error() -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_settings({**REQUIRED, "DATABASE_ENV": '{"A": "hunter2 {nope}"}'})
    assert "hunter2" not in str(refused.value)


IAM = {"STAGE": "dev", "DB_AUTH": "iam", "DB_HOST": "db", "DB_NAME": "app", "DB_USER": "migrator"}


def test_iam_needs_no_secret_where_the_variables_hold_the_rest() -> None:
    settings = read_settings(IAM)

    credentials = parse_secret(read_secret(settings.secret_id), settings)
    assert (credentials.host, credentials.port, credentials.database, credentials.user, credentials.password) == (
        *("db", 5432, "app", "migrator"),
        "",
    )


def test_iam_without_a_secret_takes_the_port_of_its_variable() -> None:
    settings = read_settings({**IAM, "DB_PORT": "6543"})

    assert parse_secret(read_secret(settings.secret_id), settings).port == 6543


@pytest.mark.parametrize("name", ["DB_HOST", "DB_NAME", "DB_USER"])
def test_iam_without_a_secret_names_the_variable_that_is_missing(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        read_settings({each: value for each, value in IAM.items() if each != name})


@pytest.mark.parametrize(
    "name,text,secrets",
    [
        ("STRIPE", "sk_live_9f8a7d6c", ["sk_live_9f8a7d6c"]),
        ("API_KEY", "plainword", ["plainword"]),
        ("AUTHORIZATION", "Basic plain", ["Basic plain"]),
        ("REVISION_AUTHOR", "migrations", []),
        ("PHRASE", "correcthorsebatterystaple", ["correcthorsebatterystaple"]),
        ("DSN", "{url}?key=9f8a7d6c5b", ["?key=9f8a7d6c5b"]),
        ("APP_SECRET", "{password}", []),
        ("APP_ENV", "production", []),
        ("DEBUG", "true", []),
        ("PORT", "5432", []),
        ("WHERE", "eu-west-1", []),
        ("FOLDER", "/var/task/app1", []),
        ("SITE", "https://example.org/a1b2c3d4", []),
    ],
)
def test_a_text_of_database_env_that_looks_like_a_secret_or_is_named_like_one_is_concealed(
    name: str, text: str, secrets: list[str]
) -> None:
    settings = read_settings({**REQUIRED, "DATABASE_ENV": json.dumps({name: text})})

    assert [secret for secret in secrets_of(settings, {}) if secret] == secrets


def test_the_function_s_aws_credentials_are_concealed() -> None:
    environ = {
        name: f"{name}-of-the-function" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    }
    others = {"AWS_REGION": "a-region-with-a-long-name", "AWS_CONTAINER_TOKEN": "test"}

    assert [*secrets_of(read_settings(REQUIRED), {**environ, **others})] == [*environ.values()]
