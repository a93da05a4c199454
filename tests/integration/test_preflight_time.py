"""The time that a preflight may take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lambda_migrate.database.common import Server
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.database.session import Session
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.invocation import Invocation
from lambda_migrate.invocation.request import parse_request
from lambda_migrate.invocation.settings import read_settings
from lambda_migrate.revisions import manifest
from lambda_migrate.run import preflight
from tests.integration.test_preflight import check, measured
from tests.support.bystander import execute

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from localcloud.postgres import Database


def test_all_schemas_share_a_quarter_of_the_time_that_is_left(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for schema in ("slow", "quick"):
        execute(database, f"CREATE SCHEMA {schema} CREATE TABLE users (id int, mail text)")
    execute(database, "INSERT INTO slow.users VALUES (1, NULL)")
    endless = check("not_null", ["mail"], "SELECT pg_sleep(60) FROM users WHERE mail IS NULL")
    entry = {"sha256": "", "findings": [], "measured": measured(endless, tables=[])}
    (tmp_path / "reviewed.json").write_text(json.dumps({"version": 2, "revisions": {"b2": entry}}))
    settings = read_settings({"STAGE": "dev", "DB_SECRET_ID": "app/db", "PREFLIGHT_TIMEOUT_MS": "60000"})
    invocation = Invocation(parse_request({"action": "plan"}), settings, Deadline.after(60), "test")

    def open_session(_: Invocation) -> Session:
        opened = database.connect()
        opened.autocommit = True
        server = Server(opened.server_version // 10000, "", database.name)
        credentials = Credentials(database.host, database.port, database.name, "", "", "verify-full", database.ca)
        return Session(opened, opened.info.backend_pid, server, credentials, Deadline.after(2.4), path=("public",))

    monkeypatch.setattr(preflight, "open_session", open_session)
    monkeypatch.setattr(manifest, "tree_of", lambda _: tmp_path)
    plan = [{"revision": "b2", "schema": "slow"}, {"revision": "b2", "schema": "quick"}]

    slow, quick = preflight.of_plan(invocation, plan)[0]
    [alone] = preflight.of_plan(invocation, plan[1:])[0]

    results = [each["preflight"]["checks"][0]["result"] for each in (slow, quick, alone)]
    assert results == ["timed_out", "timed_out", "passed"]
