"""Stage fleet, deployed once for the tests of this folder: they have the same xdist_group."""

from __future__ import annotations

import json
import secrets
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.database.schema import fingerprint, read_schema
from localcloud import postgres, testing
from localcloud.clients import client
from tests.support.checkout import ROOT, change_project, copy_checkout, with_tools
from tests.support.fleet import MACHINE, QUERY, STAGE, TREE, Fleet, Schemas
from tests.support.trees import ENV_PY, write_revision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server


@pytest.fixture(scope="session")
def fleet(shared_run: Path, postgres_server: Server) -> Fleet:
    """Stage fleet, deployed by the CDK to an emulator of its own."""
    emulator = testing.start_emulator(ROOT, shared_run, "rollout")
    checkout = copy_checkout(shared_run / "rollout")
    versions = checkout / "back" / "alembic" / "versions"
    (versions.parent / "env.py").write_text(ENV_PY)
    for old in versions.glob("*.py"):
        old.unlink()
    parent = None
    for revision in TREE:
        write_revision(versions, revision, parent)
        parent = revision.id
    (versions.parent / "reviewed.json").write_text(json.dumps(recorded(postgres_server)))
    stage = {
        "account": "000000000000",
        "region": emulator.region,
        "runtime": "local",
        "database": {"secret": "fleet/none", "ca_bundle": str(postgres_server.ca)},
        "log_retention_days": 1,
        "rollout": {
            "concurrency": 4,
            "per_server": 4,
            "retry_after_s": 1,
            "retries": 3,
            # What the machine is made for; the function's own settings say what happens in each test.
            "between_groups": "approval",
            "soak_s": 1,
            "soak_alarm": "fleet-errors",
        },
    }
    change_project(checkout, stages={STAGE: stage})
    for command in (
        ("cdk", "bootstrap", f"aws://000000000000/{emulator.region}", "--app", ""),
        ("cdk", "deploy", "--context", f"stage={STAGE}", "--require-approval", "never"),
    ):
        done = subprocess.run(
            command,
            cwd=checkout,
            env=with_tools(emulator.environment()),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    (stack,) = client(emulator, "cloudformation").describe_stacks(StackName=MACHINE)["Stacks"]
    return Fleet(emulator, {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]})


def recorded(server: Server) -> dict[str, Any]:
    """Return the reviewer's record of the tree: its schema, and a check that the second revision needs."""
    name = f"recorded_{secrets.token_hex(4)}"
    postgres.create_role(server, name, name)
    postgres.create_database(server, name, name)
    check = {"check": "not_null", "table": "one", "columns": ["id"], "name": None, "changed_before": False}
    check |= {"query": 'SELECT * FROM one WHERE "id" IS NULL', "reads": ["one"]}
    table = {"table": "one", "lock": "ACCESS EXCLUSIVE", "blocks": "reads and writes", "reads_all": True}
    work = [{"table": "one", "kind": "scan", "share": 1.0}]
    table |= {"rewrites": False, "while_locked": {"reads": ["one"], "rewrites": [], "work": work}}
    entries: dict[str, Any] = {}
    before: dict[str, str] = {}
    try:
        with closing(server.database(name, name, name).connect()) as opened, opened.cursor() as cursor:
            for revision, made in zip(TREE, ("one", "two", "three", "four"), strict=True):
                cursor.execute(f"CREATE TABLE {made} (id integer)")
                now = dict(read_schema(opened).objects)
                schema = {
                    "before": fingerprint(before),
                    "after": fingerprint(now),
                    "changed": {name: digest for name, digest in now.items() if name not in before},
                }
                checks = {"tables": [table], "checks": [check]} if made == "two" else {"tables": [], "checks": []}
                measured = {**checks, "work": [], "changes": [], "schema": schema}
                entries[revision.id] = {"sha256": "", "reviewed": True, "findings": [], "measured": measured}
                before = now
    finally:
        postgres.drop_database(server, name, name)
    return {"version": 2, "revisions": entries}


@pytest.fixture
def tenants(fleet: Fleet, database: Database, request: pytest.FixtureRequest) -> Schemas:
    """As many tenants as the test's parameter, a schema each, ordered by name."""
    schemas = Schemas(database, fleet.secret(database.secret), [f"t{number:02}" for number in range(request.param)])
    fleet.configure({"query": QUERY}, DB_SECRET_ID=schemas.secret)
    return schemas


@pytest.fixture
def another(postgres_server: Server) -> Iterator[Database]:
    """A second tenant's database."""
    name = f"test_{secrets.token_hex(6)}"
    postgres.create_role(postgres_server, name, "password")
    postgres.create_database(postgres_server, name, name)
    yield postgres_server.database(name, name, "password")
    postgres.drop_database(postgres_server, name, name)
