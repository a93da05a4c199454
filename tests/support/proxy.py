"""A TCP proxy that simulates the faults of a network."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal["none", "refuse", "reset", "blackhole", "no_tls", "delay", "cut"]


@dataclass
class Proxy:
    """Listens on ``host``:``port`` and forwards to ``upstream``, with one fault.

    The fault may be changed while connections are open: "blackhole" then swallows what comes, without closing, "reset"
    closes with a RST, "delay" holds each packet back for ``delay_s``, and "cut" resets a connection after
    ``cut_after`` bytes from the client.
    """

    upstream: tuple[str, int]
    host: str = "127.0.0.1"
    fault: Fault = "none"
    delay_s: float = 0.2
    cut_after: int = 0
    port: int = field(init=False)
    connections: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._open = True
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Proxy:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            # A blocked accept is woken by a connection, not by closing the listener.
            socket.create_connection((self.host, self.port), timeout=1).close()
        self._acceptor.join()
        self._listener.close()
        self.reset_all()

    def reset_all(self) -> None:
        """Reset every open connection."""
        for each in self._sockets:
            _reset(each)
        self._sockets.clear()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                client.close()
                return
            self.connections += 1
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.fault in {"refuse", "reset"}:
            _reset(client)
            return
        if self.fault == "no_tls":
            with contextlib.suppress(OSError):
                client.recv(8)
                client.sendall(b"N")
            return
        try:
            server = socket.create_connection(self.upstream)
        except OSError:
            _reset(client)
            return
        self._sockets.append(server)
        budget = self.cut_after
        threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()
        self._pump(client, server, budget)

    def _pump(self, source: socket.socket, sink: socket.socket, budget: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.fault == "blackhole":
                    continue
                if self.fault == "delay":
                    time.sleep(self.delay_s)
                if self.fault == "reset":
                    break
                if self.fault == "cut" and budget is not None:
                    budget -= len(data)
                    if budget <= 0:
                        break
                sink.sendall(data)
            else:
                # The other side closed in an orderly way: so do we.
                if self.fault != "blackhole":
                    sink.shutdown(socket.SHUT_WR)
                return
        _reset(source)
        _reset(sink)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def closed_port() -> int:
    """Return a port of this machine on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def random_cut(seed: int) -> int:
    """The number of bytes from the client after which to cut: from the first packet to the end of a short run."""
    return random.Random(seed).randint(1, 12_000)  # noqa: S311 - no secret
