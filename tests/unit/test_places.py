"""Two targets with one database and schema are refused, or one of them fails if that cannot be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.credentials import Credentials
from lambda_migrate.fleet import places
from lambda_migrate.fleet.waves import Tenant
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.invocation import Invocation
from lambda_migrate.invocation.request import parse_request
from lambda_migrate.invocation.settings import RDS_CA_BUNDLE, read_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def invocation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invocation:
    """An invocation whose Secrets Manager does not answer."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    settings = read_settings({"STAGE": "dev", "DB_SECRET_ID": "app/db"}, package_root=tmp_path)
    return Invocation(parse_request({"action": "status"}), settings, Deadline.after(60), "test")


def test_equal_targets_are_refused_without_their_secrets(invocation: Invocation) -> None:
    target = {"secret_id": "tenant", "schema": "a"}
    other = {"secret_id": "tenant", "schema": "b"}
    tenants = [Tenant("one", target, "db"), Tenant("two", other, "db"), Tenant("three", dict(reversed(target.items())))]

    with pytest.raises(ConfigurationError, match="'one' and 'three' have the same secret_id, database and schema"):
        places.check_places(invocation, tenants, {})

    assert places.check_places(invocation, tenants[:2], {}) == {}


def test_a_target_whose_default_schema_cannot_be_compared_fails(invocation: Invocation) -> None:
    credentials = Credentials("db", 5432, "app", "owner", "", "verify-full", RDS_CA_BUNDLE)
    tenants = [Tenant("one", {"secret_id": "a"}), Tenant("two", {"secret_id": "b", "schema": "public"})]

    unknown = places.check_places(invocation, tenants, {"a": credentials, "b": credentials})

    assert unknown.keys() == {"one"}
    assert "its default schema could not be compared" in unknown["one"]
    assert places.check_places(invocation, tenants[:1], {"a": credentials}) == {}, "it shares its database with no one"
