"""The local cloud belongs to the developer: not to another user of the machine, and not to a web page."""

from __future__ import annotations

import base64
import http.client
import io
import json
import multiprocessing
import os
import secrets
import stat
import sys
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from localcloud import account
from localcloud.access import for_own_user
from localcloud.clients import client
from tests.support import browser, http_stub

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from pathlib import Path

    from localcloud.emulator import Emulator

# What anybody can send who knows no more than the port: the credentials that the emulator's manual gives, or none.
STRANGER = "Credential=test/20260101/us-east-1/{}/aws4_request"


def attack(port: int, name: str, key_file: Path, answers: Connection) -> None:
    """Run the attack, as another user if possible, and send its outcome."""
    if other := account.unprivileged():
        os.setgroups([])
        os.setgid(other.group)
        os.setuid(other.user)
    target = {"X-Amz-Target": "secretsmanager.CreateSecret", "Content-Type": "application/x-amz-json-1.1"}
    role = "Action=AssumeRole&RoleArn=arn:aws:iam::000000000000:role/x&RoleSessionName=y"
    created = json.dumps(
        {
            "FunctionName": name,
            "Runtime": "provided.al2023",
            "Handler": "x",
            "Role": "r",
            "Code": {"ZipFile": base64.b64encode(package()).decode()},
        }
    )

    def status(method: str, path: str, body: str, service: str = "", **headers: str) -> int:
        if service:
            headers["Authorization"] = f"AWS4-HMAC-SHA256 {STRANGER.format(service)}, Signature=x"
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            return connection.getresponse().status

    statuses = [
        status("POST", "/2015-03-31/functions", created, "lambda"),
        status("POST", "/2015-03-31/functions", created),
        status("POST", f"/2015-03-31/functions/{name}/invocations", "{}", "lambda"),
        status("POST", "/", json.dumps({"Name": name, "SecretString": "x"}), "secretsmanager", **target),
        status("POST", "/", role, "sts", **{"Content-Type": "application/x-www-form-urlencoded"}),
        status("GET", "/_ministack/health", ""),
        status("POST", "/_ministack/reset", ""),
        status("PUT", "/_ministack/cfn-response/../reset", ""),
    ]
    try:
        found = key_file.read_text()
    except OSError as error:
        found = type(error).__name__
    answers.send((statuses, found))


def package() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("bootstrap", "#!/bin/sh\n")
    return content.getvalue()


def port_of(emulator: Emulator) -> int:
    return int(emulator.endpoint.rpartition(":")[2])


def secret_names(emulator: Emulator) -> set[str]:
    with closing(client(emulator, "secretsmanager")) as manager:
        pages = manager.get_paginator("list_secrets").paginate()
        return {secret["Name"] for page in pages for secret in page["SecretList"]}


def has_function(emulator: Emulator, name: str) -> bool:
    with closing(client(emulator, "lambda")) as functions:
        try:
            functions.get_function_configuration(FunctionName=name)
        except functions.exceptions.ResourceNotFoundException:
            return False
        return True


def test_another_user_of_this_machine_gets_nothing_done(emulator: Emulator) -> None:
    name = f"attack-{secrets.token_hex(4)}"
    key_file = emulator.directory / "emulator.json"
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=attack, args=(port_of(emulator), name, key_file, theirs)
    )

    process.start()
    theirs.close()
    statuses, found = ours.recv()
    process.join()

    assert statuses == [403] * len(statuses)
    # Only root can be another user. Anybody else attacks as a user like the developer, who may read the file.
    assert found == "PermissionError" or account.unprivileged() is None
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert not has_function(emulator, name)
    assert name not in secret_names(emulator)


@pytest.mark.skipif(browser.missing() is not None, reason=browser.missing() or "")
def test_a_web_page_of_another_origin_gets_nothing_done(emulator: Emulator) -> None:
    name = f"page-{secrets.token_hex(4)}"

    class Site(http_stub.Handler):
        def do_GET(self) -> None:  # noqa: N802 - http.server calls it by this name
            self.send(200, b"<!doctype html><title>elsewhere</title>")

    send = """(async () => {
      const ask = (path, options) => fetch(ENDPOINT + path, options).then(
        (response) => response.type + " " + response.status, () => "failed");
      const body = JSON.stringify({Name: NAME, SecretString: "x"});
      const results = [
        await ask("/", {method: "POST", mode: "no-cors", body,
                        headers: {"Content-Type": "text/plain"}}),
        await ask("/?X-Amz-Target=secretsmanager.CreateSecret", {method: "POST", mode: "no-cors", body}),
        await ask("/", {method: "POST", body, headers: {"X-Amz-Target": "secretsmanager.CreateSecret",
                        "Content-Type": "application/x-amz-json-1.1", "Authorization": CREDENTIAL}}),
        await ask("/2015-03-31/functions", {method: "POST", mode: "no-cors", body: JSON.stringify({FunctionName: NAME,
                        Runtime: "provided.al2023", Role: "r", Handler: "x", Code: {ZipFile: CODE}})}),
        await ask("/_ministack/health", {}),
        await ask("/" + NAME, {method: "PUT", mode: "cors", body: ""}),
      ];
      const image = new Image();
      await new Promise((done) => { image.onload = image.onerror = done; image.src = ENDPOINT + "/" + NAME; });
      return results;
    })()"""
    values = {
        "ENDPOINT": emulator.endpoint,
        "NAME": name,
        "CREDENTIAL": f"AWS4-HMAC-SHA256 {STRANGER.format('secretsmanager')}",
        "CODE": base64.b64encode(package()).decode(),
    }
    for word, value in values.items():
        send = send.replace(word, json.dumps(value))
    with http_stub.serve(Site) as elsewhere, browser.page() as tab:
        tab.goto(elsewhere)
        results = tab.evaluate(send)

    # "opaque" is an answer that the page cannot see. Nothing of what was asked for is there, so it was the refusal.
    assert set(results) <= {"failed", "opaque 0"}
    assert results[2] == results[4] == results[5] == "failed"
    assert not has_function(emulator, name)
    assert name not in secret_names(emulator)
    with closing(client(emulator, "s3")) as s3:
        assert name not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}


REFUSED: dict[str, Mapping[str, str]] = {
    "no key": {"Authorization": ""},
    "a guess": {"Authorization": f"AWS4-HMAC-SHA256 {STRANGER.format('secretsmanager')}"},
    "the beginning of the key": {"Authorization": "Credential=LOCAL/x"},
    "an origin, with the key": {"Origin": "http://127.0.0.1:1"},
    "an opaque origin": {"Origin": "null"},
    "a page of another site": {"Sec-Fetch-Site": "cross-site"},
    "a name that resolves to this machine": {"Host": "attacker.example"},
    "a name that begins like it": {"Host": "127.0.0.1.attacker.example"},
    "a name with the port": {"Host": "localhost.attacker.example:80"},
    "a broken host": {"Host": "[::1"},
}


@pytest.mark.parametrize("why", ["the key", *REFUSED])
def test_a_request_needs_the_key_no_origin_and_a_host_of_this_machine(emulator: Emulator, why: str) -> None:
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={emulator.key}/20260101/us-east-1/secretsmanager/aws4_request",
        "X-Amz-Target": "secretsmanager.ListSecrets",
        "Content-Type": "application/x-amz-json-1.1",
        **REFUSED.get(why, {}),
    }
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(emulator), timeout=30)) as connection:
        connection.request("POST", "/", "{}", headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())

    assert answer.status == (200 if why == "the key" else 403), body
    assert emulator.key not in json.dumps(body)


def test_every_start_has_a_key_of_its_own(emulator: Emulator) -> None:
    given = emulator.settings()

    assert given["AWS_ACCESS_KEY_ID"] == emulator.key
    assert len(emulator.key) > 40
    assert emulator.key not in repr(emulator)


def test_a_functions_code_comes_from_the_cdks_assets_only(emulator: Emulator) -> None:
    name = f"inline-{secrets.token_hex(4)}"
    functions, s3, formation = (client(emulator, service) for service in ("lambda", "s3", "cloudformation"))
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key=f"{'0' * 64}.zip", Body=package())
    rest = {"FunctionName": name, "Runtime": "provided.al2023", "Handler": "x", "Role": "arn:aws:iam::0:role/any"}
    sources: list[dict[str, Any]] = [
        {"ZipFile": package()},
        {"S3Bucket": name, "S3Key": f"{'0' * 64}.zip"},
        {"S3Bucket": "cdk-x-assets-000000000000-us-east-1", "S3Key": "other.zip"},
    ]

    for code in sources:
        with pytest.raises(ClientError, match="only runs assets of the CDK"):
            functions.create_function(**rest, Code=code)
    template = {
        "Resources": {
            "F": {
                "Type": "AWS::Lambda::Function",
                "Properties": {**rest, "Runtime": "python3.12", "Code": {"ZipFile": "def handler(*_): pass"}},
            }
        }
    }
    formation.create_stack(StackName=name, TemplateBody=json.dumps(template))
    with pytest.raises(Exception, match=r"terminal failure|ROLLBACK|failed"):
        formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    assert not has_function(emulator, name)
    for each in (functions, s3, formation):
        each.close()


def ask(port: int, other_user: bool, answers: Connection) -> None:  # noqa: FBT001 - of another process
    """Read the next event of a function, as another user if possible, and send the statuses."""
    if other_user and (other := account.unprivileged()):
        os.setgroups([])
        os.setgid(other.group)
        os.setuid(other.user)
    statuses = []
    for headers in ({}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "attacker.example"}):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", "/2018-06-01/runtime/invocation/next", headers=headers)
            statuses.append(connection.getresponse().status)
    answers.send(statuses)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not show whose connection it is")
@pytest.mark.parametrize("other_user", [False, True], ids=["own", "other"])
def test_the_interface_of_a_running_function_is_for_the_developers_programs(*, other_user: bool) -> None:
    class Event(http_stub.Handler):
        def do_GET(self) -> None:  # noqa: N802 - http.server calls it by this name
            self.send(200, b"{}")

    ours, theirs = multiprocessing.Pipe()
    with http_stub.serve(for_own_user(Event)) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        process = multiprocessing.get_context("fork").Process(target=ask, args=(port, other_user, theirs))
        process.start()
        statuses = ours.recv()
        process.join()

    refused = other_user and account.unprivileged() is not None
    assert statuses == [403 if refused else 200, 403, 403, 403]
