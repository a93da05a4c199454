"""Reads the source of a revision's upgrade and downgrade: their string constants, and whether they do anything.

The driver imports this in the backend's interpreter, whose Python may be newer than ours. So this module imports only
the standard library.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSERT = re.compile(
    r'\bINSERT\s+INTO\s+(?:[\w"]+\.)?"?(?P<table>\w+).*?(?=\bWHERE\b|\bON\s+CONFLICT\b|;|\Z)', re.IGNORECASE | re.DOTALL
)
_LITERAL = re.compile(r"'((?:[^']|'')*)'|(?<![\w.])(\d+(?:\.\d+)?)(?![\w.])")
# Values that a statement writes. The table does not contain them before the statement.
_ASSIGNED = re.compile(r"\b(SET\s+[\w.\"]+\s*=|THEN|ELSE)\s*'(?:[^']|'')*'", re.IGNORECASE)
_DECLARES = re.compile(r"\s*CREATE\s+TABLE\s+(IF\s+NOT\s+EXISTS\s+)?[\w.\"]+\s*\(", re.IGNORECASE)
_WORD = re.compile(r"[\w.@-]{1,40}")


def upgrade_texts(source: bytes) -> str:
    """Return the string constants in ``upgrade()``, one on each line, without values that its SQL writes.

    They contain the values that the revision's statements may look for. A single word is quoted, as in SQL.
    """
    texts = []
    for function in _functions(ast.parse(source), "upgrade"):
        for node in ast.walk(function):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if _DECLARES.match(node.value):
                    continue  # no statement looks for its defaults, and the schema has its constraints
                text = _ASSIGNED.sub(" ", node.value)
                texts.append(f"'{text}'" if _WORD.fullmatch(text) else text)
            texts += _uses(node)
    return "\n".join(texts)


# Python's types of a column's value, and the equivalent SQL.
_CASTS = {
    "loads": "jsonb", "UUID": "uuid", "ip_address": "inet", "ip_network": "inet", "fromisoformat": "timestamp",
    "int": "integer", "float": "numeric", "Decimal": "numeric",
}  # fmt: skip


def _uses(node: ast.AST) -> Iterator[str]:
    """Yield uses of a column's value in Python as SQL. Examples: ``json.loads(row.data)``, ``row.data["key"]``."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        column = _column(node.value)
        if column is not None:
            yield f"{column}['{node.slice.value}']"
    if isinstance(node, ast.Call) and node.args and (cast := _CASTS.get(_called(node) or "")) is not None:
        column = _column(node.args[0])
        if column is not None:
            yield f"{column}::{cast}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        column, key = _column(node.func.value), node.args[0]
        if column is not None and isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield f"{column} -> '{key.value}'"


def _column(node: ast.AST) -> str | None:
    """Return the name of the column that an expression such as ``row.data``, ``row["data"]`` or ``data`` reads."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return node.slice.value
    if isinstance(node, ast.Call) and _called(node) == "loads" and node.args:
        return _column(node.args[0])
    return node.id if isinstance(node, ast.Name) else None


def inserted_values(source: bytes) -> set[tuple[str, str]]:
    """Return the values that ``upgrade()`` inserts, each with the bare name of its table.

    No test row may contain them. Otherwise the downgrade, which deletes the revision's rows by these values, would
    delete that row, too.
    """
    module = ast.parse(source)
    tables = dict(_tables(module))
    found: set[tuple[str, str]] = set()
    for function in _functions(module, "upgrade"):
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                found.update(_inserted_by(node, tables))
    return found


def is_empty(source: bytes, name: str) -> bool:
    """Return whether the function of this name does nothing; a missing one does nothing either."""
    try:
        module = ast.parse(source)
    except SyntaxError:
        return False
    # Of several functions of one name, Python keeps the last.
    last = [*_functions(module, name)][-1:]
    return all(_does_nothing(statement) for function in last for statement in function.body)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass) or (isinstance(statement, ast.Return) and statement.value is None)


def _functions(module: ast.Module, name: str) -> Iterator[ast.FunctionDef]:
    return (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)


def _tables(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each variable that is a SQLAlchemy table, with the table's name."""
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and (name := _table(node.value)) is not None:
            yield from ((target.id, name) for target in node.targets if isinstance(target, ast.Name))


def _table(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Call) or _called(node) not in ("table", "Table", "create_table") or not node.args:
        return None
    name = node.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _called(call: ast.Call) -> str | None:
    return getattr(call.func, "attr", getattr(call.func, "id", None))


def _inserted_by(call: ast.Call, tables: dict[str, str]) -> Iterator[tuple[str, str]]:
    nodes = [*ast.walk(call)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    statements = [match for text in texts for match in _INSERT.finditer(text)]
    for match in statements:
        for text, number in _LITERAL.findall(match[0]):
            yield match["table"], number or text.replace("''", "'")
    into = {match["table"] for match in statements} | set(_tables_of_insert(call, nodes, tables))
    # The call's other texts are the statement's parameters.
    yield from ((table, text) for table in into for text in texts if not _INSERT.search(text))


def _tables_of_insert(call: ast.Call, nodes: list[ast.AST], tables: dict[str, str]) -> Iterator[str]:
    """Yield the tables that ``op.bulk_insert(table, ...)`` or ``insert(table).values(...)`` contains."""
    if _called(call) in ("bulk_insert", "values"):
        for node in nodes:
            name = tables.get(node.id) if isinstance(node, ast.Name) else _table(node)
            if name is not None:
                yield name
