"""Finds things that a revision needs and the review's server or database lacks. Then the revision is not measured.

Examples are an extension or a tablespace of another server, a role, and tables that existed before the first revision.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from migrate_review.observation import Catalog

PG_DUMP = "pg_dump --schema-only --no-owner --no-privileges"

_EXTENSIONS = (
    re.compile(r'extension "(?P<name>[^"]+)" is not available'),
    re.compile(r'could not open extension control file ".*/(?P<name>[^/"]+)\.control"'),
    re.compile(r"(?P<name>\w+) must be loaded via .?shared_preload_libraries"),
    re.compile(r'could not access file "(?P<name>[^"]+)": No such file or directory'),
)
_TABLESPACE = re.compile(r'tablespace "(?P<name>[^"]+)" does not exist')
_ELSEWHERE = "review on a server that has it: --database-url postgresql://USER:PASSWORD@HOST/postgres"
_UNDEFINED = re.compile(
    r"(?P<kind>relation|table|view|sequence|type|schema|role|function|operator class|text search configuration)"
    r' "?(?P<name>[^"(]+?)"?(\([^)]*\))? does not exist'
)
_RELATIONS = ("relation", "table", "view", "sequence")


def lacking(failure: str, before: Catalog, earlier: Iterable[str]) -> str | None:
    """Return what is missing and the fix, or None if the revision itself failed.

    Args:
        failure: the server's message.
        before: the schema before the revision.
        earlier: the texts of the earlier revisions.
    """
    for pattern in _EXTENSIONS:
        if (found := pattern.search(failure)) is not None:
            return f"the server has no extension {found['name']}; {_ELSEWHERE}"
    if (tablespace := _TABLESPACE.search(failure)) is not None:
        return f"the server has no tablespace {tablespace['name']}; {_ELSEWHERE}"
    undefined = _UNDEFINED.search(failure)
    if undefined is None or not _from_outside(undefined["kind"], undefined["name"], before, earlier):
        return None
    if undefined["kind"] == "role":
        return (
            f"the role {undefined['name']} is missing, and no earlier revision creates it; add to the file of"
            f" --baseline FILE, or to baseline.sql beside alembic.ini: CREATE ROLE {undefined['name']};"
        )
    return (
        f"the {undefined['kind']} {undefined['name']} is missing, and no earlier revision creates it; if your databases"
        f" have it before the first revision, pass their schema dump with --baseline FILE ({PG_DUMP})"
    )


def _from_outside(kind: str, name: str, before: Catalog, earlier: Iterable[str]) -> bool:
    if kind in _RELATIONS and before.tables:
        return False  # the revisions create the tables themselves, so the name is wrong
    bare = name.rpartition(".")[2].strip('"')
    word = re.compile(rf"\b{re.escape(bare)}\b", re.IGNORECASE)
    return not any(word.search(text) for text in earlier)
