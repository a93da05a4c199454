"""A proxy between a contestant and PostgreSQL. It counts round trips and adds latency."""

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

# A TLS record: its kind, the protocol's version, its length.
_HEADER = struct.Struct("!BHH")
_APPLICATION_DATA = 23
# PostgreSQL's protocol: a length and a code.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass
class Network:
    """Passes everything on to ``upstream``, each packet after half of ``latency_s``. It is a context manager.

    A round trip is a TLS record of data from the client, which is a request and a wait for the answer. Packets are
    unsuitable: messages that the server sends by itself come between them at random. ``trips`` are the round trips of
    each connection. The first ones belong to the login, the last one to the end.
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
        # shutdown() wakes a blocked accept(); close() alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)

    @property
    def port(self) -> int:
        """Return the port on this machine."""
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
                # The request for TLS comes before the first record and has another format.
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
        """Yield the packets, each after its latency, then end the other side's stream."""
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.latency_s:
                    time.sleep(self.latency_s / 2)
                yield data
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
