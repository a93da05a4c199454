"""TCP ports on the loopback addresses."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from localcloud.errors import LocalCloudError

_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_ATTEMPTS = 50


def choose(preferred: int | None) -> int:
    """Return a port that is free on every loopback address of this machine: `preferred` if it is free.

    Another program may take the port before the caller binds it.
    """
    if preferred is not None and _is_free(preferred):
        return preferred
    for _ in range(_ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        if _is_free(port):
            return port
    raise LocalCloudError(f"No free TCP port was found on 127.0.0.1 in {_ATTEMPTS} attempts; stop some servers.")


def _is_free(port: int) -> bool:
    # A client may resolve "localhost" to either address, so the port must be free on both.
    with ExitStack() as stack:
        for family, address in _LOOPBACKS:
            if _answers(family, address, port):
                return False
            try:
                probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                probe.bind((address, 0))
            except OSError:
                continue  # this machine does not have the address
            # Connections of a server that has just stopped linger. They do not prevent another from listening.
            probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def _answers(family: socket.AddressFamily, address: str, port: int) -> bool:
    # Some systems let a program bind one address while another listens on all. A connection finds that listener.
    try:
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            return client.connect_ex((address, port)) == 0
    except OSError:
        return False
