"""The differences between the connections of SQLAlchemy 1.4 and 2.

With 2, and with ``future=True`` in 1.4, a statement begins a transaction, and a connection has commit() and rollback().
Other connections of 1.4 have no such methods. Outside of a transaction, they commit each statement that changes
something. After any other statement, the driver stays in a transaction that SQLAlchemy does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import base

if TYPE_CHECKING:
    import sqlalchemy

# The classes of the connections that a pool gives out. SQLAlchemy 1.4 has only the first one.
POOLED: tuple[type[Any], ...] = tuple(
    getattr(base, name) for name in ("_ConnectionFairy", "_AdhocProxiedConnection") if hasattr(base, name)
)


def begins_by_itself(connection: sqlalchemy.Connection) -> bool:
    """Return whether a statement begins a transaction."""
    return hasattr(connection, "commit")


def begin(connection: sqlalchemy.Connection) -> None:
    """Begin a transaction, unless the connection is in one."""
    if not connection.in_transaction():
        connection.begin()


def commit(connection: sqlalchemy.Connection) -> None:
    """Commit the transaction, if the connection is in one."""
    transaction = connection.get_transaction()
    if transaction is not None:
        transaction.commit()


def rollback(connection: sqlalchemy.Connection) -> None:
    """Roll the transaction back, if the connection is in one."""
    transaction = connection.get_transaction()
    if transaction is not None:
        transaction.rollback()
