"""The packaged function, started under AWS's runtime client against this test's own database."""

from __future__ import annotations

import fcntl
import json
import secrets
from typing import TYPE_CHECKING

import jsonschema
import pytest

from infra.package.builder import build
from infra.package.package_platform import Platform
from localcloud.clients import client
from tests.support.functions import ROOT, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database

LOG_LINE = jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "log-schema.json").read_text()))


@pytest.fixture(scope="session")
def package(shared_run: Path) -> Path:
    """The function's package with the reference backend in it, built once for all workers."""
    out = shared_run / "package"
    with (shared_run / "package.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            build(ROOT / "back", out, Platform())
    return out


@pytest.fixture
def put_secret(emulator: Emulator) -> Callable[[object], str]:
    """Store a secret, as text or as JSON, and return its name."""
    manager = client(emulator, "secretsmanager")

    def put(value: object) -> str:
        name = f"test/{secrets.token_hex(8)}"
        manager.create_secret(Name=name, SecretString=value if isinstance(value, str) else json.dumps(value))
        return name

    return put


@pytest.fixture
def runner(
    package: Path, database: Database, emulator: Emulator, put_secret: Callable[[object], str], tmp_path: Path
) -> Iterator[Runner]:
    """Functions whose secret has this test's database. Each line that they log must be JSON without the password."""
    runner = Runner(
        package,
        {
            **emulator.settings(),
            "STAGE": "test",
            "DB_SECRET_ID": put_secret(database.secret),
            "DB_SSLROOTCERT": str(database.ca),
            "POWERTOOLS_SERVICE_NAME": "template-saas-api-migrate",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "TARGETS_ALLOWED": '{"secret_id": ["*"], "database": ["*"], "schema": ["*"]}',
        },
        tmp_path,
    )
    yield runner
    runner.close()
    marker = database.password[:16]
    for line in runner.lines():
        assert marker not in line
        LOG_LINE.validate(json.loads(line))
    for answer in runner.answers():
        assert marker not in answer
