"""The addresses at which the function calls AWS's services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_migrate.invocation import aws

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDPOINT = "https://vpce-0123456789abcdef0-abcdefgh.secretsmanager.eu-central-1.vpce.amazonaws.com"


@pytest.fixture(autouse=True)
def new_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "eu-central-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    # A botocore that does not know these variables, as a backend may have locked one, behaves so.
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    aws.client.cache_clear()
    yield
    aws.client.cache_clear()


def test_the_secret_is_read_at_the_endpoint_that_the_stack_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", ENDPOINT)

    client = aws.client("secretsmanager")
    assert (client.meta.endpoint_url, client.meta.region_name) == (ENDPOINT, "eu-central-1")


def test_the_endpoint_is_that_of_secrets_manager_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", ENDPOINT)

    assert aws.client("s3").meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"


@pytest.mark.parametrize("value", [None, ""])
def test_without_an_endpoint_it_is_the_services_own_name(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", value)

    assert aws.client("secretsmanager").meta.endpoint_url == "https://secretsmanager.eu-central-1.amazonaws.com"
