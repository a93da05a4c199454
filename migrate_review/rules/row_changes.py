"""Finds changes of rows whose success depends on the rows of the database, and which no query can check in advance.

Examples are an INSERT of a key that may exist, an UPDATE of a unique column, and a conversion of values.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lambda_migrate.database.lock_modes import WRITE
from migrate_review.sql_text import bare, in_parentheses, split

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from migrate_review.observation import Catalog, Column, Index, Observation, Statement, Table

_NAME = r"(?:\"(?:[^\"]|\"\")+\"|[\w$]+)"
_TABLE = rf"(?:ONLY )?(?P<table>{_NAME}(?:\.{_NAME})?)"
_INSERT = re.compile(rf"INSERT INTO {_TABLE}(?: AS {_NAME})? ?(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_UPDATE = re.compile(
    rf"UPDATE {_TABLE}(?:(?: AS)? (?!SET\b){_NAME})? SET (?P<rest>.*)",  # noqa: S608 - a pattern
    re.IGNORECASE | re.DOTALL,
)
_DELETE = re.compile(rf"DELETE FROM {_TABLE}", re.IGNORECASE)  # noqa: S608 - a pattern
_FILLS = re.compile(
    r"(?:CREATE (?:UNLOGGED |TEMP(?:ORARY)? )?TABLE|(?:CREATE|REFRESH) MATERIALIZED VIEW)"
    rf" (?:IF NOT EXISTS |CONCURRENTLY )?{_TABLE}(?P<columns>.*? AS )?(?P<query>.*)",
    re.IGNORECASE | re.DOTALL,
)
_UNIQUE_INDEX = re.compile(
    rf"CREATE UNIQUE INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?(?:{_NAME} )?ON {_TABLE}", re.IGNORECASE
)
_UNKNOWN = re.compile(r"(?:MERGE|COPY|CALL|DO|WITH|SELECT)\b", re.IGNORECASE)
_END_OF_SET = re.compile(r" (?:FROM|WHERE|RETURNING) ", re.IGNORECASE)
_TEXTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_LITERAL = re.compile(r"(?:'(?:[^']|'')*'|[-+]?\d+(?:\.\d+)?|true|false|NULL|DEFAULT)(?: ?:: ?[\w. ]+)?", re.IGNORECASE)
_NULL_COUNTS = re.compile(r"NULLS NOT DISTINCT|MATCH FULL")
_REFUSES_DELETE = re.compile(r"^(?!.*\bON DELETE (?:CASCADE|SET ))", re.DOTALL)

# Texts, names, and operators and functions that accept any value.
_HARMLESS = re.compile(
    r"\bSELECT \*|\.\*|\(\*\)|'(?:[^']|'')*'(?:::[\w.]+(?: \w+)*)?|\"(?:[^\"]|\"\")*\""
    r"|::(?:text|character varying)(?!\()|->>?|#>>?"
    r"|\b(?:lower|upper|coalesce|nullif|greatest|least|concat|btrim|ltrim|rtrim|trim|length|char_length|md5|now"
    r"|to_tsvector|gen_random_uuid|count|max|min|and|or|not|in|any|all|array|as|from|join|on|where|exists)\s*\(",
    re.IGNORECASE,
)
_MAY_FAIL = re.compile(r"[-+*/%^]|::|\bCAST\b|\w\s*\(", re.IGNORECASE)


def may_fail(expression: str) -> bool:
    """Return whether an expression may raise an error for some values, or calls an unknown function."""
    return _MAY_FAIL.search(_HARMLESS.sub(" ", expression)) is not None


def dependent(observation: Observation) -> set[str]:
    """Return the tables whose existing rows may make a change of the upgrade fail, by their names in the statements."""
    return {
        table
        for statement in observation.upgrade.statements
        for sql in split(" ".join(statement.sql.split()), ";")
        for table in _of(sql.strip(), statement, observation)
    }


def _of(sql: str, statement: Statement, observation: Observation) -> Iterator[str]:
    catalogs = [each for each in (observation.before, observation.after) if each is not None]
    for pattern, depends in ((_INSERT, _insert), (_UPDATE, _update), (_DELETE, _delete), (_UNIQUE_INDEX, _index)):
        found = pattern.match(sql)
        if found is not None:
            if depends(found["table"], found.groupdict().get("rest") or "", catalogs):
                yield found["table"]
            return
    filled = _FILLS.match(sql)
    if filled is not None:
        is_filled = bool(filled["columns"]) or sql[:7].upper() == "REFRESH"
        if is_filled and (may_fail(filled["query"]) or _is_unique(filled["table"], catalogs)):
            yield filled["table"]
    elif _UNKNOWN.match(sql):
        yield from statement.changed
        yield from (lock.table for lock in statement.locks if lock.mode == WRITE)


def _named(catalog: Catalog, name: str) -> Table | None:
    wanted = [bare(part) for part in split(name, ".") if bare(part) != "public"]
    return next((each for each in catalog.tables if [bare(part) for part in split(each.name, ".")] == wanted), None)


def _insert(name: str, rest: str, catalogs: Collection[Catalog]) -> bool:
    listed, values = in_parentheses(rest) if rest.startswith("(") else ("", rest)
    if re.search(r"\bFROM\b", _TEXTS.sub("", values), re.IGNORECASE):
        return True
    given = {bare(each.strip()) for each in split(listed)} if listed else None
    keeps = re.search(r"\bON CONFLICT\b", _TEXTS.sub("", values), re.IGNORECASE) is not None
    before, *_ = catalogs
    tables = [(table, catalog) for catalog in catalogs if (table := _named(catalog, name)) is not None]
    return any(
        (not keeps and _named(before, name) is not None and _meets(columns, given))
        or (keyed and _meets(columns, given))
        for table, _ in tables
        for columns, keyed in _keys(table, before)
    )


def _meets(columns: Collection[str], given: Collection[str] | None) -> bool:
    return given is None or not columns or bool(set(columns) & set(given))


def _keys(table: Table, before: Catalog) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the columns of each unique index, and of each foreign key to an existing table with True."""
    for index in table.indexes:
        if index.unique:
            yield index.columns, False
    for constraint in table.constraints:
        if constraint.kind == "x":
            yield constraint.columns, False
        elif constraint.kind == "f" and constraint.references and before.table_named(constraint.references):
            yield constraint.columns, True


def _update(name: str, rest: str, catalogs: Collection[Catalog]) -> bool:
    end = _END_OF_SET.search(_TEXTS.sub(lambda found: "'" + " " * (len(found[0]) - 2) + "'", rest))
    tables = [table for catalog in catalogs if (table := _named(catalog, name)) is not None]
    for assignment in split(rest[: end.start()] if end else rest):
        column, is_plain, value = (part.strip() for part in assignment.partition("="))
        if not is_plain or column.startswith("(") or not tables:
            return True
        is_literal = _LITERAL.fullmatch(value) is not None
        given = value if is_literal else None
        if any(_refuses(table, bare(column), catalogs, given) for table in tables):
            return True
        if not is_literal and may_fail(value):
            return True
    return False


def _refuses(table: Table, name: str, catalogs: Collection[Catalog], literal: str | None) -> bool:
    """Return whether a new value of a column may be refused. ``literal`` is the value, or None for an expression."""
    is_literal, is_null = literal is not None, literal is not None and literal.upper().startswith("NULL")
    column: Column | None = next((each for each in table.columns if each.name == name), None)
    if column is not None and not is_literal and (column.not_null or "(" in column.type):
        return True
    mentioned = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    for constraint in table.constraints:
        # The review ran the statement, so a CHECK of only this column accepts the literal.
        is_known = is_literal and constraint.kind in "cn" and constraint.columns == (name,)
        is_free = is_null and constraint.kind in "fpu" and not _NULL_COUNTS.search(constraint.definition)
        if name in constraint.columns and not is_known and not is_free:
            return True
    return any(
        index.unique and mentioned.search(index.definition) and not (is_null and _takes_null(index, name))
        for index in table.indexes
    ) or any(
        constraint.references == table.name and mentioned.search(constraint.definition.partition(" REFERENCES ")[2])
        for catalog in catalogs
        for other in catalog.tables
        for constraint in other.constraints
    )


def _takes_null(index: Index, column: str) -> bool:
    """Return whether a unique index accepts any number of rows with NULL in a column."""
    return column in index.columns and not index.partial and not _NULL_COUNTS.search(index.definition)


def _delete(name: str, rest: str, catalogs: Collection[Catalog]) -> bool:
    del rest
    return any(
        constraint.references == table.name and _REFUSES_DELETE.match(constraint.definition)
        for catalog in catalogs
        if (table := _named(catalog, name)) is not None
        for other in catalog.tables
        for constraint in other.constraints
    )


def _index(name: str, rest: str, catalogs: Collection[Catalog]) -> bool:
    """Return whether an index is on a materialized view, whose rows no check reads."""
    del rest
    return any(view.name == name for catalog in catalogs for view in catalog.materialized)


def _is_unique(name: str, catalogs: Collection[Catalog]) -> bool:
    return any(
        (table := _named(catalog, name)) is not None and any(index.unique for index in table.indexes)
        for catalog in catalogs
    ) or any("CREATE UNIQUE INDEX" in catalog.others.get(f"materialized view {name}", "") for catalog in catalogs)
