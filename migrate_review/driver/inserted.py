"""Which values a revision puts into rows of its own, by its source. Part of the driver, so nothing but Python's own.

No row is to have them before the revision runs: its downgrade, which deletes its rows by them, would take those too.
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


def inserted(source: bytes) -> set[tuple[str, str]]:
    """The values that a revision's upgrade inserts, each with its table's bare name."""
    module = ast.parse(source)
    tables = dict(_tables(module))
    found: set[tuple[str, str]] = set()
    for function in module.body:
        if isinstance(function, ast.FunctionDef) and function.name == "upgrade":
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    found.update(_by_call(node, tables))
    return found


def _tables(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Variables that hold a table of SQLAlchemy's, with its name."""
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


def _by_call(call: ast.Call, tables: dict[str, str]) -> Iterator[tuple[str, str]]:
    nodes = [*ast.walk(call)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    into = {match["table"] for text in texts for match in _INSERT.finditer(text)}
    for match in (match for text in texts for match in _INSERT.finditer(text)):
        for text, number in _LITERAL.findall(match[0]):
            yield match["table"], number or text.replace("''", "'")
    if _called(call) in ("bulk_insert", "values"):
        named = {tables.get(node.id) for node in nodes if isinstance(node, ast.Name)}
        into |= {name for name in (*named, *map(_table, nodes)) if name is not None}
    # Beside a statement its parameters.
    yield from ((table, text) for table in into for text in texts if not _INSERT.search(text))
