"""A man in the middle on this machine: relays the first connections unchanged, and attacks the later ones."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field
from typing import Literal

import trustme

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_GSS_REQUEST = struct.pack("!ii", 8, 80877104)
_CLEARTEXT_PASSWORD = b"R" + struct.pack("!ii", 8, 3)

Attack = Literal["own certificate", "no TLS"]


@dataclass
class ManInTheMiddle:
    """Listens on ``port``. After ``relayed`` connections it poses as the server and requests the password.

    ``passwords`` are those that a client has sent. Its certificate has the right host name, from an authority of its
    own.
    """

    upstream: tuple[str, int]
    attack: Attack
    relayed: int = 1
    passwords: list[str] = field(default_factory=list)
    attacked: int = 0
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost", "127.0.0.1", "::1").configure_cert(self._tls)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = True
        self._connections = 0
        self._sockets: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> ManInTheMiddle:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        # A blocked accept is woken by a connection, not by closing the listener.
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        self._acceptor.join()
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if not self._open:
                client.close()
                return
            self._connections += 1
            self._sockets.append(client)
            serve = self._relay if self._connections <= self.relayed else self._pretend
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        server = socket.create_connection(self.upstream)
        self._sockets.append(server)
        threading.Thread(target=_pump, args=(server, client), daemon=True).start()
        _pump(client, server)

    def _pretend(self, client: socket.socket) -> None:
        self.attacked += 1
        with contextlib.suppress(OSError, ssl.SSLError), contextlib.closing(client):
            client.settimeout(10)
            first = client.recv(8, socket.MSG_PEEK)
            while first in {_SSL_REQUEST, _GSS_REQUEST}:
                client.recv(8)
                if first == _SSL_REQUEST and self.attack == "own certificate":
                    client.sendall(b"S")
                    client = self._tls.wrap_socket(client, server_side=True)
                    self._sockets.append(client)
                    break
                client.sendall(b"N")
                first = client.recv(8, socket.MSG_PEEK)
            client.recv(4096)  # the startup message
            client.sendall(_CLEARTEXT_PASSWORD)
            answer = client.recv(4096)
            if answer[:1] == b"p":
                self.passwords.append(answer[5:].rstrip(b"\0").decode())


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
