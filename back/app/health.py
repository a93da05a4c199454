"""`GET /health`: whether the database is where this code needs it to be.

With the standard library's server, which is enough for one address. An application brings its own
framework and keeps the answer.
"""

from __future__ import annotations

import json
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from app import migrations
from app.revising import reason

if TYPE_CHECKING:
    from sqlalchemy import Engine


def health(engine: Engine) -> tuple[HTTPStatus, dict[str, str | None]]:
    """Return 200 when the database is at the code's head and 503 otherwise, with both revisions."""
    body: dict[str, str | None] = {"status": "unavailable", "revision": None, "head": None}
    try:
        body["head"] = migrations.code_head()
        body["revision"] = migrations.database_revision(engine)
    except Exception as error:  # any error means 503
        return HTTPStatus.SERVICE_UNAVAILABLE, {**body, "reason": reason(error)}
    if body["revision"] != body["head"]:
        return HTTPStatus.SERVICE_UNAVAILABLE, {
            **body,
            "reason": "the database is not at this code's head",
        }
    return HTTPStatus.OK, {**body, "status": "ok"}


def server(engine: Engine, port: int) -> ThreadingHTTPServer:
    """Open the port; `serve_forever` answers on it."""
    return ThreadingHTTPServer(("", port), partial(_Handler, engine))


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, engine: Engine, *arguments: object) -> None:
        self._engine = engine
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path != "/health":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status, body = health(self._engine)
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent: a line for each health check would bury what matters."""
