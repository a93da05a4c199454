"""Qualifies the function's own SQL, so that nothing in it is resolved in a schema that other roles may write to.

It also quotes names and texts for SQL.

PostgreSQL resolves each name of a function, an operator, a type or a table in the schemas of the session's search_path,
and prefers an exact match in any of them over a match in pg_catalog that needs a cast. A role that may create objects
in one of them could run code with the rights of the function's login (CVE-2018-1058). In a session of the function's
own, the first statement sets the search_path, so only that one is qualified. In env.py's session every statement is.
"""

from __future__ import annotations

import re
from functools import lru_cache

# The search_path of the function's own session after its first statement.
SEARCH_PATH = "pg_catalog, pg_temp"

_TOKEN = re.compile(
    r"""(?P<literal>[eE]?'(?:[^'\\]|''|\\.)*'|"(?:[^"]|"")*")
    |(?P<parameter>%\(\w+\)s|%s|(?<!:):[A-Za-z_]\w*)
    |(?P<cast>::)(?P<type>[a-z]\w*)
    |(?P<function>(?<![.\w])[a-z_][a-z0-9_]*)(?=\()
    |(?P<relation>(?<![.\w])pg_[a-z0-9_]+)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<number>-?\d+)
    |(?P<operator>[-+*/<>=~!@\#%^&|`?]+)
    |(?P<other>\s+|[().,;\[\]])""",
    re.VERBOSE,
)
_OPERATORS = frozenset({"=", "<>", "<", ">", "<=", ">=", "||", "~", "->>"})
# Constructs of the grammar that look like functions, and types whose names are keywords: both resolve no name.
_GRAMMAR = frozenset({"coalesce", "exists"})
_KEYWORD_TYPES = frozenset({"int", "bigint", "boolean"})
# These constructs look an operator up by its name alone, which cannot be qualified. Before PostgreSQL 14, so does the
# body of the last one.
_UNQUALIFIABLE = re.compile(
    r"\b(?:IN \(|(?:BETWEEN|I?LIKE|SIMILAR TO|USING|NATURAL|nullif|IS (?:NOT )?DISTINCT)\b|CASE (?!WHEN)"
    r"|\w+_description\()",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"'(?:[^'\\]|''|\\.)*'")


@lru_cache(maxsize=32)
def qualified(sql: str) -> str:
    """Return the statement with each function, operator, type and catalog taken from pg_catalog.

    Functions are lower case and directly before their parenthesis. An operator in its qualified form has no precedence
    over others, so each operation beside another one needs parentheses.

    Raises:
        ValueError: the statement has a construct that cannot be qualified.
    """
    found = _UNQUALIFIABLE.search(_LITERAL.sub("''", sql))
    if found is not None:
        raise ValueError(f"cannot be qualified: {found[0]!r}")
    parts: list[str] = []
    position = 0
    while position < len(sql):
        token = _TOKEN.match(sql, position)
        if token is None or (token["operator"] and token["operator"] not in _OPERATORS | {"*"}):
            raise ValueError(f"cannot be qualified: {sql[position : position + 20]!r}")
        parts.append(_qualified_token(token))
        position = token.end()
    return "".join(parts)


def _qualified_token(token: re.Match[str]) -> str:
    if token["operator"] in _OPERATORS:
        return f"OPERATOR(pg_catalog.{token['operator']})"
    if token["type"]:
        return token[0] if token["type"] in _KEYWORD_TYPES else f"::pg_catalog.{token['type']}"
    if token["relation"] or (token["function"] and token["function"] not in _GRAMMAR):
        return f"pg_catalog.{token[0]}"
    return token[0]


def identifier(name: str) -> str:
    """Return a name as an SQL identifier in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal, because drivers' placeholders differ. "%" is escaped: it may begin one."""
    quoted = text.replace("'", "''")
    return f"E'{quoted}'".replace("\\", "\\\\").replace("%", "\\045")
