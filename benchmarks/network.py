"""A network between a contestant and PostgreSQL: it counts round trips, and takes its time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# A record of TLS: its kind, the protocol's version, its length.
_HEADER = struct.Struct("!BHH")
_APPLICATION_DATA = 23
# PostgreSQL's protocol: a length and a code.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass
class Network:
    """Passes everything on to ``upstream``, each packet after half of ``latency_s``; use it as a context.

    A round trip is a record of data that the client sends under TLS: each asks something, and waits for the answer.
    (Packets would not do: what the server sends unasked falls between them at random.) ``trips`` are those of each
    connection, the first ones being the login's and the last one its end.
    """

    upstream: tuple[str, int]
    latency_s: float = 0.0
    trips: list[int] = field(default_factory=list)

    def __enter__(self) -> Network:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # A blocked accept is woken by this, and not by closing alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)

    @property
    def port(self) -> int:
        """Where to connect to, on this machine."""
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.upstream)
            except OSError:
                return
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = len(self.trips)
            self.trips.append(0)
            for target, arguments in (
                (self._ask, (client, server, number)),
                (self._answer, (server, client)),
            ):
                thread = threading.Thread(target=target, args=arguments, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _ask(self, client: socket.socket, server: socket.socket, number: int) -> None:
        stream = b""
        with contextlib.suppress(OSError):
            for data in self._packets(client, server):
                stream += data
                # Before TLS begins there is one request for it, which looks like no record.
                stream = stream.removeprefix(_SSL_REQUEST)
                while len(stream) >= _HEADER.size:
                    kind, _, length = _HEADER.unpack_from(stream)
                    if len(stream) < _HEADER.size + length:
                        break
                    stream = stream[_HEADER.size + length :]
                    self.trips[number] += kind == _APPLICATION_DATA
                server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for data in self._packets(server, client):
                client.sendall(data)

    def _packets(self, source: socket.socket, sink: socket.socket) -> Iterator[bytes]:
        """What comes, each after its time on the way; at the end the other side is told."""
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.latency_s:
                    time.sleep(self.latency_s / 2)
                yield data
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
