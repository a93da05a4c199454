"""The first messages of a PostgreSQL server of any version: enough for a client to read the version."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def old_server(version: str) -> Iterator[int]:
    """Accept any client without TLS or a password, report ``version``, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, version), daemon=True).start()
        yield listener.getsockname()[1]
        # Closing the listener would not wake the one who accepts.
        socket.create_connection(listener.getsockname()).close()


def _serve(listener: socket.socket, version: str) -> None:
    client, _ = listener.accept()
    with client, contextlib.suppress(OSError):
        client.recv(4096)
        client.sendall(_message("R", struct.pack("!i", 0)))  # AuthenticationOk
        parameters = {
            "server_version": version,
            "client_encoding": "UTF8",
            "DateStyle": "ISO, MDY",
            "standard_conforming_strings": "on",
        }
        for name, value in parameters.items():
            client.sendall(_message("S", f"{name}\0{value}\0".encode()))
        client.sendall(_message("Z", b"I"))  # ReadyForQuery
        while client.recv(4096):
            """It answers no other message."""


def _message(kind: str, body: bytes) -> bytes:
    return kind.encode() + struct.pack("!i", len(body) + 4) + body
