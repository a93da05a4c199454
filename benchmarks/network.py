"""A network between a contestant and PostgreSQL: it counts round trips, and takes its time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Network:
    """Passes everything on to ``upstream``, each packet after half of ``latency_s``; use it as a context.

    A round trip is a packet from the client that comes after one from the server: an answer that was waited for. TLS
    does not hide that. ``trips`` are those of each connection, the first ones being the login's.
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
            answered = threading.Event()
            for target, arguments in (
                (self._ask, (client, server, number, answered)),
                (self._answer, (server, client, answered)),
            ):
                thread = threading.Thread(target=target, args=arguments, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _ask(self, client: socket.socket, server: socket.socket, number: int, answered: threading.Event) -> None:
        with contextlib.suppress(OSError):
            for data in self._packets(client, server):
                if answered.is_set():
                    answered.clear()
                    self.trips[number] += 1
                server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket, answered: threading.Event) -> None:
        with contextlib.suppress(OSError):
            for data in self._packets(server, client):
                answered.set()
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
