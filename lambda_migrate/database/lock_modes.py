"""PostgreSQL's table lock modes, as pg_locks names them, and what each of them blocks.

From the manual's section "Table-Level Locks" and its table "Conflicting Lock Modes",
https://www.postgresql.org/docs/current/explicit-locking.html. The driver imports this module in the backend's
interpreter, so it imports only the standard library.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ACCESS_SHARE = "AccessShareLock"
ROW_SHARE = "RowShareLock"
ROW_EXCLUSIVE = "RowExclusiveLock"
SHARE_UPDATE_EXCLUSIVE = "ShareUpdateExclusiveLock"
SHARE = "ShareLock"
SHARE_ROW_EXCLUSIVE = "ShareRowExclusiveLock"
EXCLUSIVE = "ExclusiveLock"
ACCESS_EXCLUSIVE = "AccessExclusiveLock"

# The locks of a query on a table that it reads, and on one that it writes to.
READ, WRITE = ACCESS_SHARE, ROW_EXCLUSIVE

# Weakest first.
MODES = (
    ACCESS_SHARE,
    ROW_SHARE,
    ROW_EXCLUSIVE,
    SHARE_UPDATE_EXCLUSIVE,
    SHARE,
    SHARE_ROW_EXCLUSIVE,
    EXCLUSIVE,
    ACCESS_EXCLUSIVE,
)

CONFLICTS: Mapping[str, frozenset[str]] = {
    ACCESS_SHARE: frozenset({ACCESS_EXCLUSIVE}),
    ROW_SHARE: frozenset({EXCLUSIVE, ACCESS_EXCLUSIVE}),
    ROW_EXCLUSIVE: frozenset({SHARE, SHARE_ROW_EXCLUSIVE, EXCLUSIVE, ACCESS_EXCLUSIVE}),
    SHARE_UPDATE_EXCLUSIVE: frozenset({
        SHARE_UPDATE_EXCLUSIVE, SHARE, SHARE_ROW_EXCLUSIVE, EXCLUSIVE, ACCESS_EXCLUSIVE,
    }),
    SHARE: frozenset({
        ROW_EXCLUSIVE, SHARE_UPDATE_EXCLUSIVE, SHARE_ROW_EXCLUSIVE, EXCLUSIVE, ACCESS_EXCLUSIVE,
    }),
    SHARE_ROW_EXCLUSIVE: frozenset({
        ROW_EXCLUSIVE, SHARE_UPDATE_EXCLUSIVE, SHARE, SHARE_ROW_EXCLUSIVE, EXCLUSIVE, ACCESS_EXCLUSIVE,
    }),
    EXCLUSIVE: frozenset(MODES) - {ACCESS_SHARE},
    ACCESS_EXCLUSIVE: frozenset(MODES),
}  # fmt: skip

_STRENGTH = {mode: strength for strength, mode in enumerate(MODES)}


def strength(mode: str | None) -> int:
    """Return the mode's place among `MODES`; -1 for no mode, and for locks that are not a table's."""
    return -1 if mode is None else _STRENGTH.get(mode, -1)


def strongest(modes: Iterable[str]) -> str:
    """Return the mode that comes last in `MODES`."""
    return max(modes, key=MODES.index)


def conflicting(shown: str) -> frozenset[str]:
    """Return the modes that conflict with a mode, which is given as the manual spells it; none if there is no such."""
    return next((modes for mode, modes in CONFLICTS.items() if shown_mode(mode) == shown), frozenset())


def blocks(modes: Iterable[str]) -> str | None:
    """Return what locks of these modes block: "reads and writes", "writes", or None."""
    held = frozenset(modes)
    if held & CONFLICTS[READ]:
        return "reads and writes"
    return "writes" if held & CONFLICTS[WRITE] else None


def shown_mode(mode: str) -> str:
    """Return a lock mode as the manual spells it: ACCESS EXCLUSIVE."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
