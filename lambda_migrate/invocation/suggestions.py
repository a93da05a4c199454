"""Recognises variables that hold parts of a database's address, and suggests the DATABASE_ENV that sets them."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# A name is about this database if it has one of these words, and about another one if it has one of those.
_OURS = re.compile(r"(POSTGRES|PSQL|PG|DATABASE|DB|SQL|RDS)")
_OTHERS = re.compile(r"(MYSQL|MARIADB|MONGO|REDIS|SQLITE|MSSQL|ORACLE|ELASTIC|CLICKHOUSE|TEST|DYNAMO|INFLUX|VECTOR)")
# The end of a variable's name, and the placeholder of its content. The first match counts.
_ENDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(URL|URI|DSN|(CONNECTION|DATABASE|DB)_STRING)$"), "url"),
    (re.compile(r"PORT(_FOR_[A-Z]+)?$"), "port"),
    (re.compile(r"(HOST|SERVER|HOST_?NAME|ADDRESS|ENDPOINT)$"), "host"),
    (re.compile(r"(PASSWORD|PASSWD|PASS|PWD)$"), "password"),
    (re.compile(r"(USER|USER_?NAME|LOGIN)$"), "user"),
    (re.compile(r"SSL_?MODE$"), "sslmode"),
    (re.compile(r"DRIVER$"), "driver"),
    (re.compile(r"(DATABASE|DB|DBNAME|(?<!CONNECTION_)(?<!INSTANCE_)(?<!APPLICATION_)(?<!SCHEMA_)NAME)$"), "database"),
)
_PASSWORD = re.compile(r"password|passwd|pass|pwd", re.IGNORECASE)
_QUOTES = re.compile(r"\bquote(?:_plus)?\(")
_ASYNC_URL = "postgresql+asyncpg://{user_quoted}:{password_quoted}@{host}:{port}/{database}"


def database_env(names: Iterable[str], *, escapes: bool = True) -> dict[str, str]:
    """Return the templates of DATABASE_ENV for those of these variables that hold a part of an address.

    ``escapes`` says that the code escapes the user and the password where it puts them into a URL.
    """
    found: dict[str, str] = {}
    for name in names:
        upper = name.upper()
        if not _OURS.search(upper) or _OTHERS.search(upper):
            continue
        part = next((part for end, part in _ENDS if end.search(upper)), None)
        if part is not None:
            found[name] = _ASYNC_URL if part == "url" and "ASYNC" in upper else f"{{{part}}}"
    if not escapes:
        quoted = {"{user}": "{user_quoted}", "{password}": "{password_quoted}"}
        found = {name: quoted.get(text, text) for name, text in found.items()}
    return found


def puts_password_into_url(source: str, module: ast.Module) -> bool:
    """Return whether an f-string of a module puts a password into an address as it is."""
    if _QUOTES.search(source):
        return False
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            fixed = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            filled = (part for part in node.values if isinstance(part, ast.FormattedValue))
            if "://" in fixed and any(_PASSWORD.search(ast.unparse(part.value)) for part in filled):
                return True
    return False


def to_paste(templates: Mapping[str, str], others: Collection[str] = ()) -> str:
    """Return a stage's ``environment`` with these templates, and with further variables that need some value."""
    content = {**({"DATABASE_ENV": templates} if templates else {}), **dict.fromkeys(others, "...")}
    return f'"environment": {json.dumps(content)}'
