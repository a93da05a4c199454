"""The access check of the emulator: it accepts only the developer's own programs, and runs only code of CDK assets.

MiniStack answers anybody who reaches its port: another user of this machine, or a web page in the developer's browser,
could create a function and so run code as the developer. This program starts MiniStack with three checks before it:

- A request must carry the key of this start, which is in a file that only the developer can read. The key is the
  access key id of the credentials, because every client of AWS sends it with each request.
- It must have no Origin header and must be addressed to this machine by its own name or address. So it refuses a page
  of another site, even if the page's host name resolves to 127.0.0.1.
- A function's code must be an asset that the CDK has uploaded.

The interface from which a running function reads its events gets the same checks. Its client, AWS's own, sends no key,
so the client's user takes the place of the key.

It runs under the interpreter of the emulator's environment, and uses nothing of this project.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping
    from http.server import BaseHTTPRequestHandler

    Scope = MutableMapping[str, Any]
    Send = Callable[[Mapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Any, Send], Awaitable[None]]

_HOSTS = frozenset({"127.0.0.1", "localhost"})
# In a signed request's Authorization header, or in the query of its address.
_CREDENTIAL = re.compile(r"\bCredential=([^/,\s]+)/")
_QUERY = "X-Amz-Credential"
# CloudFormation waits for a custom resource's answer at an address that only the resource's function has.
_ANSWER = re.compile(r"/_ministack/cfn-response/[0-9a-f-]{16,}")
_ASSET_BUCKET = re.compile(r"cdk-[a-z0-9]+-assets-[0-9]{12}-[a-z0-9-]+")
_ASSET = re.compile(r"[0-9a-f]{64}\.zip")
_NOT_AN_ASSET = "the local cloud only runs assets of the CDK: deploy the stack"


class AccessCheck:
    """An ASGI application that passes on requests with the key.

    Args:
        app: the emulator.
        key: the access key id of the developer's credentials.
    """

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._keys = {key}

    def accept(self, key: str) -> None:
        """Accept an access key id that the emulator itself has issued, for instance for the CDK's roles."""
        self._keys.add(key)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:  # noqa: ANN401 - the type of ASGI
        """Pass a request on, or refuse it with status 403."""
        reason = self._refusal(scope) if scope["type"] in {"http", "websocket"} else None
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(send, reason)

    def _refusal(self, scope: Scope) -> str | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if reason := _from_a_page(headers):
            return reason
        if scope["type"] == "http" and scope["method"] == "PUT" and _ANSWER.fullmatch(scope["path"]):
            return None
        signed = _CREDENTIAL.search(headers.get("authorization", ""))
        query = parse_qs(scope.get("query_string", b"").decode("latin-1")).get(_QUERY, [""])
        given = signed[1] if signed else query[0].partition("/")[0]
        if not any(hmac.compare_digest(given.encode(), known.encode()) for known in self._keys):
            return "the request lacks the key of the local cloud: `python -m localcloud env` prints its settings"
        return None


def _from_a_page(headers: Mapping[str, str]) -> str | None:
    """Return why a request may come from a web page, by its headers in lower case, or None if it does not."""
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return "web pages may not use the local cloud"
    if _host_of(headers.get("host", "")) not in _HOSTS:
        return "the local cloud answers to 127.0.0.1 and localhost only"
    return None


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


async def _refuse(send: Send, reason: str) -> None:
    body = json.dumps({"__type": "AccessDeniedException", "message": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-amzn-errortype", b"AccessDeniedException"),
        # The client may not have sent its body yet; it must not become a part of the next request.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def is_asset(code: Mapping[str, Any]) -> bool:
    """Return whether a function's code, if it has any, is an asset of the CDK in its bucket."""
    if code.get("ZipFile") or code.get("ImageUri"):
        return False
    bucket, key = code.get("S3Bucket"), code.get("S3Key")
    if not (bucket or key):
        return True
    return bool(_ASSET_BUCKET.fullmatch(str(bucket)) and _ASSET.fullmatch(str(key)))


def _allow_assets_only() -> None:
    """Wrap the emulator's functions that take code, of the API and of CloudFormation."""
    functions: Any = import_module("ministack.services.lambda_svc")
    provisioners: Any = import_module("ministack.services.cloudformation.provisioners")
    create, update, provision = functions._create_function, functions._update_code, provisioners._lambda_create  # noqa: SLF001
    publish = functions._publish_layer_version  # noqa: SLF001

    def created(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the emulator's own answer
        return create(data) if is_asset(data.get("Code") or {}) else _refused()

    def updated(name: str, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        return update(name, data) if is_asset(data) else _refused()

    def published(name: str, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        return publish(name, data) if is_asset(data.get("Content") or {}) else _refused()

    def provisioned(logical_id: str, props: Mapping[str, Any], stack_name: str) -> Any:  # noqa: ANN401
        if not is_asset(props.get("Code") or {}):
            raise ValueError(_NOT_AN_ASSET)
        return provision(logical_id, props, stack_name)

    def _refused() -> Any:  # noqa: ANN401
        return functions.error_response_json("AccessDeniedException", _NOT_AN_ASSET, 403)

    functions._create_function, functions._update_code = created, updated  # noqa: SLF001
    functions._publish_layer_version = published  # noqa: SLF001
    _replace(provisioners, provision, provisioned)


def for_own_user(handler: type[BaseHTTPRequestHandler]) -> type[BaseHTTPRequestHandler]:
    """Return the handler of an HTTP server with the checks of a running function's interface."""

    class Checked(handler):  # type: ignore[misc, valid-type]
        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            reason = _from_a_page({name.lower(): value for name, value in self.headers.items()})
            user = _user_of(self.client_address[1], self.server.server_address[1])
            if reason is None and user not in {None, os.getuid()}:
                reason = "only the developer's own programs may use the local cloud"
            if reason is not None:
                self.send_error(403, reason)
            return reason is None

    return Checked


def _user_of(port: int, server: int) -> int | None:
    """Return the user whose program has a connection from this port, or None if this system does not show it."""
    try:
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    for _, local, remote, *rest in map(str.split, lines):
        if (int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)) == (port, server):
            return int(rest[4])
    return -1


def _check_runtime_interface() -> None:
    worker: Any = import_module("ministack.core.lambda_runtime").ProvidedWorker
    build = worker._build_handler_class  # noqa: SLF001

    def built(self: Any, *arguments: Any) -> Any:  # noqa: ANN401
        return for_own_user(build(self, *arguments))

    worker._build_handler_class = built  # noqa: SLF001


def _replace(module: Any, old: object, new: object) -> None:  # noqa: ANN401
    """Replace a function, also in the tables of its module."""
    for name, value in list(vars(module).items()):
        if value is old:
            setattr(module, name, new)
        elif isinstance(value, dict):
            for entry in value.values():
                if isinstance(entry, dict):
                    entry.update({key: new for key, inner in entry.items() if inner is old})


def main() -> None:
    """Start MiniStack behind the access check. The key is this process's own access key id."""
    emulator: Any = import_module("ministack.app")
    sessions: Any = import_module("ministack.services.sts")
    functions: Any = import_module("ministack.services.lambda_svc")
    key = os.environ["AWS_ACCESS_KEY_ID"]
    check = AccessCheck(emulator.app, key)
    register, credentials = sessions.register_session, functions.execution_credentials

    def registered(access_key: str, session: MutableMapping[str, Any]) -> None:
        check.accept(access_key)
        register(access_key, session)

    def of_function(config: Mapping[str, Any]) -> dict[str, str]:
        return {**credentials(config), "AWS_ACCESS_KEY_ID": key}

    sessions.register_session = registered
    # The second module starts functions of Lambda's own runtimes, such as those that the CDK adds.
    for module in (functions, import_module("ministack.core.lambda_runtime")):
        cast("Any", module).execution_credentials = of_function
    _allow_assets_only()
    _check_runtime_interface()
    # This program runs as a script, so its neighbours are top-level modules.
    import_module("long_runs").install(is_asset)
    emulator.app = check
    sys.exit(emulator.main())


if __name__ == "__main__":
    main()
