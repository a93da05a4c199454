"""The backend prints no secret of the function, and its process reaches no password but its own database's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from localcloud import postgres
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

PRINTS = """
import base64, os
from urllib.parse import unquote, urlsplit
password = unquote(urlsplit(os.environ["DATABASE_URL"]).password)
for octets in (password.encode(), f"user:{password}@host".encode()):
    print(base64.b64encode(octets).decode(), base64.urlsafe_b64encode(octets).decode(), end=" ")
    print(octets.hex(), octets.hex().upper())
print(password.upper(), password.lower())
print({name: value for name, value in os.environ.items() if name.startswith("AWS_")})
print(os.environ["STRIPE"], os.environ["APP_SECRET"], os.environ["APP_ENV"])
"""
# Every text that Python's collector can reach from what it tracks.
SEARCHES = """
import gc
gc.unfreeze()
reached, found, left = set(), 0, gc.get_objects()
while left:
    each = left.pop()
    if id(each) in reached:
        continue
    reached.add(id(each))
    if isinstance(each, (str, bytes)):
        found += (MARKER if isinstance(each, str) else MARKER.encode()) in each
    else:
        left += gc.get_referents(each)
print("found", found - OWN)
"""


def test_credentials_and_encoded_passwords_that_the_backend_prints_are_redacted(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    token = "IQoJb3JpZ2luX2VjEXAMPLETOKEN//////////8B"
    credentials = [
        value
        for name, value in runner.environment.items()
        if name.startswith("AWS_") and "KEY" in name and len(value) > 15
    ]
    answer = runner.invoke(
        write_tree(tmp_path / "tree", [Rev("a1", sql("SELECT 1"))], env_py=PRINTS + ENV_PY),
        None,
        AWS_SESSION_TOKEN=token,
        DATABASE_ENV=json.dumps({"STRIPE": "sk_live_9f8a7d6c", "APP_SECRET": "plainword", "APP_ENV": "production"}),
    )

    assert answer.error_type is None, answer.payload
    printed = [line["message"] for line in runner.events("backend.output")]
    assert printed[:3] == ["*** *** *** ***", "*** *** *** ***", "*** ***"]
    assert "AWS_SECRET_ACCESS_KEY" in printed[3]
    assert printed[4] == "*** *** production"
    everything = "".join(runner.lines()).lower()
    for secret in (*credentials, token, database.password[:10], "sk_live", "plainword"):
        assert secret.lower() not in everything


def test_the_process_of_env_py_reaches_no_other_target_s_password(
    runner: Runner, postgres_server: Server, database: Database, put_secret: Callable[[object], str], tmp_path: Path
) -> None:
    other = replace(database, name=f"{database.name}_other", user=f"{database.name}_o", password="Mzkwq7vXh2another")
    postgres.create_role(postgres_server, other.user, other.password)
    postgres.create_database(postgres_server, other.name, other.user)
    # The parts of the text keep the search from finding itself.
    search = SEARCHES.replace("MARKER", "''.join(['Mzkw', 'q7vX', 'h2an', 'other'])").replace("OWN", "0")
    function = runner.start(write_tree(tmp_path / "tree", [Rev("a1", sql("SELECT 1"))], env_py=search + ENV_PY))
    try:
        there = {"target": {"secret_id": put_secret(other.secret)}}
        assert function.invoke({"action": "upgrade", **there}).error_type is None
        assert function.invoke({"action": "upgrade"}).error_type is None
    finally:
        postgres.drop_database(postgres_server, other.name, other.user)

    found = [line["message"] for line in runner.events("backend.output")]
    # The search finds the password of a process's own target.
    assert found[0] != "found 0"
    assert found[1] == "found 0"
