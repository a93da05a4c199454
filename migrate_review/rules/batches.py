"""Writes the code that changes many rows in batches, with the backend's ``backfill`` module if it has one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.names import Identifier, escaped, literal

if TYPE_CHECKING:
    from pathlib import Path

    from migrate_review.observation import Catalog

# One UPDATE or DELETE of one table, whose condition can be extended.
_SIMPLE = re.compile(
    r"(?P<head>(?:update\s+(?:only\s+)?\S+\s+set\s|delete\s+from\s+(?:only\s+)?\S+)(?:(?!\b(?:from|using|returning|select)\b).)*?)"
    r"(?:\swhere\s(?P<where>(?:(?!\b(?:returning)\b).)*))?",
    re.IGNORECASE | re.DOTALL,
)
# Maximum number of folders between a revision's file and alembic.ini.
_FOLDERS = 5
_ROWS = 1000
_NUMBERS = ("smallint", "integer", "bigint")


def fix(table: str, sql: str, before: Catalog, revision: Path) -> str:
    """Return the code that makes the same change in batches, each in its own transaction."""
    bare = " ".join(re.sub(r"/\*.*?\*/\s*$", "", sql, flags=re.DOTALL).split()).rstrip(";")
    simple = _SIMPLE.fullmatch(bare)
    key = _key(table, before)
    if simple is None or key is None:
        return (
            "# Change the rows in batches along the primary key, each batch in its own transaction. Use a loop in an\n"
            "# autocommit block, or a separate program."
        )
    condition = f"({simple['where']}) AND " if simple["where"] else ""
    if any((folder / "backfill.py").is_file() for folder in revision.parents[:_FOLDERS]):
        statement = f"{simple['head'].strip()} WHERE {condition}".replace("{", "{{").replace("}", "}}") + "{batch}"
        return (
            "from backfill import backfill  # along the primary key, each batch in its own transaction\n\n"
            f"backfill({literal(table)}, {literal(statement)})"
        )
    # Keys may have gaps of any size, so the code counts rows, not keys.
    batch = f"SELECT {key} FROM {table} WHERE {key} > :done ORDER BY {key} LIMIT {_ROWS}"  # noqa: S608 - quoted
    lowest = f"SELECT min({key}) - 1 FROM {table}"  # noqa: S608 - quoted
    last = f"SELECT max({key}) FROM ({batch}) AS batch"  # noqa: S608 - quoted
    ranged = f"{key} > :done AND {key} <= :last"
    statement = f"{escaped(simple['head'].strip())} WHERE {escaped(condition)}{ranged}"
    return "\n".join([
        "# along the primary key, each batch in its own transaction",
        f"find_last = sa.text({literal(last)})",
        f"change = sa.text({literal(statement)})",
        "with op.get_context().autocommit_block():",
        f"    done = op.get_bind().scalar(sa.text({literal(lowest)}))",
        '    while (last := op.get_bind().scalar(find_last, {"done": done})) is not None:',
        "        op.execute(change.bindparams(done=done, last=last))",
        "        done = last",
    ])  # fmt: skip


def _key(table: str, before: Catalog) -> str | None:
    """Return the primary key of a table if it is one integer column."""
    found = before.table_named(table)
    keys = [each.columns for each in found.constraints if each.kind == "p"] if found else []
    types = {column.name: column.type for column in found.columns} if found else {}
    if not keys or len(keys[0]) > 1 or types[keys[0][0]] not in _NUMBERS:
        return None
    return Identifier(keys[0][0]).sql
