"""Reads the state of a session from a driver's connection.

A driver's connection here is the one of psycopg2, psycopg or pg8000, or SQLAlchemy's adapter of an async driver.
"""

from __future__ import annotations

from typing import Any


def pid_at_connect(driver: Any) -> int | None:  # noqa: ANN401 - each driver has its own connection
    """Return the backend's pid that the driver got at connect time, or None if it does not keep it."""
    connection: Any = getattr(driver, "driver_connection", driver)
    if hasattr(connection, "get_server_pid"):  # asyncpg
        return int(connection.get_server_pid())
    pid = getattr(getattr(connection, "info", None), "backend_pid", None)  # psycopg2, psycopg
    return None if pid is None else int(pid)


def status(driver: Any) -> bool | None:  # noqa: ANN401 - as above
    """Return whether a session is in no transaction, or None if the driver does not show it."""
    connection: Any = getattr(driver, "driver_connection", driver)
    if hasattr(connection, "is_in_transaction"):  # asyncpg
        return not connection.is_in_transaction()
    letter = getattr(connection, "_transaction_status", None)  # pg8000; private, as nothing else shows it
    if letter is not None:
        return bytes(letter) == b"I"
    state = getattr(getattr(connection, "info", None), "transaction_status", None)  # psycopg2, psycopg
    return None if state is None else int(state) == 0  # PQTRANS_IDLE


def is_idle(driver: Any) -> bool:  # noqa: ANN401 - as above
    """Return whether a session is in no transaction, or in autocommit if the driver does not know."""
    idle = status(driver)
    return bool(getattr(driver, "autocommit", False)) if idle is None else idle
