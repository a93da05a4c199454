"""Finds tables and columns that a revision drops if they exist, and that do not exist here.

Where they exist, the statement takes locks and loses rows, which the review has not measured.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lambda_migrate.env_py.statements import split
from migrate_review.sql_text import bare, unqualified

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from migrate_review.observation import Catalog, Statement

_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_TABLES = re.compile(rf"DROP\s+TABLE\s+IF\s+EXISTS\s+(?P<names>{_NAME}(?:\s*[.,]\s*{_NAME})*)", re.IGNORECASE)
_TABLE = re.compile(
    rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(?P<table>{_NAME}(?:\s*\.\s*{_NAME})*)", re.IGNORECASE
)
_COLUMN = re.compile(rf"\bDROP\s+COLUMN\s+IF\s+EXISTS\s+(?P<column>{_NAME})", re.IGNORECASE)
_COMMENTS = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)


def dropped(statements: Sequence[Statement], catalogs: Sequence[Catalog]) -> Iterator[str]:
    """Yield a reason for each table and column that is missing in all ``catalogs``: those before and after.

    An object that another statement names is not reported, because the revision may create it and drop it.
    """
    tables: dict[str, set[str]] = {}
    for table in (table for each in catalogs for table in each.tables):
        tables.setdefault(unqualified(table.name), set()).update(column.name for column in table.columns)
    there = {*tables, *(unqualified(name) for each in catalogs for name in each.views)}
    pieces = [_COMMENTS.sub("", piece, count=1) for each in statements for piece in split(each.sql)]
    for piece in pieces:
        if (found := _TABLES.match(piece)) is not None:
            others = " ".join(each for each in pieces if not _TABLES.match(each))
            for name in (unqualified(each) for each in found["names"].split(",")):
                if name not in there and not _names(others, name):
                    yield f"there is no table {name} here that DROP TABLE IF EXISTS could drop"
        elif (altered := _TABLE.match(piece)) is not None and (of := unqualified(altered["table"])) in tables:
            others = " ".join(each for each in pieces if each is not piece)
            for column in (bare(each["column"]) for each in _COLUMN.finditer(piece)):
                if column not in tables[of] and not _names(others, column):
                    yield f"{of} has no column {column} here that DROP COLUMN IF EXISTS could drop"


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE) is not None
