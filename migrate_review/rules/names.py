"""Writes names in fixes: as PostgreSQL shows them, as arguments of an Alembic operation, and as SQL in a Python string.

PostgreSQL quotes a relation's name if necessary and omits only the schema ``public``, as in ``audit."user"``. An
operation has separate arguments for the bare name and the schema. A column, a constraint or an index has a bare name.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_PART = re.compile(r'"((?:[^"]|"")*)"|([^".]+)')
_SIMPLE = re.compile(r"[a-z_][a-z0-9_$]*")
# A Python string in a template. A comment line contains no string.
_STRING = re.compile(r'"(?P<double>[^"\n]*)"|\'(?P<single>[^\'\n]*)\'')
_ONLY = re.compile(r"\{(\w+)\}")

# PostgreSQL's reserved words (its manual, appendix C). A name that is a reserved word is quoted.
RESERVED = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast
    char character check coalesce collate collation column concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user dec decimal default deferrable
    desc distinct do else end except exists extract false fetch float for foreign freeze from full grant greatest group
    grouping having ilike in initially inner inout int integer intersect interval into is isnull join json json_array
    json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table json_value
    lateral leading least left like limit localtime localtimestamp merge_action national natural nchar none normalize
    not notnull null nullif numeric offset on only or order out outer overlaps overlay placing position precision
    primary real references returning right row select session_user setof similar smallint some substring symmetric
    system_user table tablesample then time timestamp to trailing treat trim true union unique user using values
    varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest
    xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()  # noqa: SIM905 - as the manual lists them
)


class Relation(str):
    """The name of a table or view as PostgreSQL shows it."""

    __slots__ = ()

    @property
    def parts(self) -> tuple[str | None, str]:
        """The schema, None if it is ``public``, and the bare name."""
        found = [quoted.replace('""', '"') if quoted else plain for quoted, plain in _PART.findall(self)]
        return (found[0], found[1]) if len(found) > 1 else (None, found[0] if found else str(self))

    @property
    def own(self) -> Identifier:
        """The name without its schema."""
        return Identifier(self.bare)

    @property
    def bare(self) -> str:
        """The name without its schema and quotes."""
        return self.parts[1]


class Identifier(str):
    """The bare name of a column, a constraint or an index."""

    __slots__ = ()

    @property
    def sql(self) -> str:
        """Return the name for SQL, quoted if necessary."""
        plain = _SIMPLE.fullmatch(self) and self not in RESERVED
        return str(self) if plain else '"' + self.replace('"', '""') + '"'


def shown(sql: str) -> Relation:
    """Return a name of SQL as PostgreSQL shows it: ``"public"."mood"`` is ``mood``."""
    parts = [quoted.replace('""', '"') if quoted else plain.lower() for quoted, plain in _PART.findall(sql)]
    if len(parts) > 1 and parts[0] == "public":
        parts = parts[1:]
    return Relation(".".join(Identifier(part).sql for part in parts))


def sql_text(value: str) -> str:
    """Return a text as a constant of SQL."""
    return "'" + value.replace("'", "''") + "'"


_RELATIONS = frozenset({"table", "other_table", "view", "child", "parent_table"})
_IDENTIFIERS = frozenset({"column", "name", "index"})


def literal(text: str) -> str:
    """Return a text as a Python string, in double quotes where possible."""
    if '"' not in text and "\\" not in text and text.isprintable():
        return f'"{text}"'
    return repr(text)


def escaped(statement: str) -> str:
    """Return SQL for ``op.execute``, which reads a colon before a word as a parameter."""
    return re.sub(r"(?<![:\\]):(?=\w)", r"\\:", statement)


def listed(columns: tuple[str, ...]) -> str:
    """Return names as a Python list."""
    return ", ".join(literal(column) for column in columns)


def fix(template: str, names: Mapping[str, Any]) -> str:
    """Return a fix with the names filled in, as Python code.

    A string that is only a placeholder is an operation's argument: it gets the bare name, and ``{table_schema}`` after
    it gets the argument for the schema. Any other string is SQL. ``{table.bare}`` in it is a part of another name.
    """
    values = {key: _named(key, value) for key, value in names.items()}
    for key, value in [*values.items()]:
        if isinstance(value, Relation):
            schema = value.parts[0]
            values[f"{key}_schema"] = f", schema={literal(schema)}" if schema else ""
    return "\n".join(_line(line, values) for line in template.split("\n"))


def _named(key: str, value: Any) -> Any:  # noqa: ANN401 - a name of any kind
    if isinstance(value, (Relation, Identifier)) or not isinstance(value, str):
        return value
    if key in _RELATIONS:
        return Relation(value)
    return Identifier(value) if key in _IDENTIFIERS else value


class _Sql(string.Formatter):
    """Formats names as SQL."""

    def format_field(self, value: Any, spec: str) -> str:  # noqa: ANN401
        return value.sql if isinstance(value, Identifier) and not spec else str(format(value, spec))


def _line(line: str, values: Mapping[str, Any]) -> str:
    if line.lstrip().startswith("#"):
        return _Sql().vformat(line, (), values)
    done, place = [], 0
    for found in _STRING.finditer(line):
        text = found["double"] if found["double"] is not None else found["single"]
        only = _ONLY.fullmatch(text)
        value = values[only[1]] if only else _Sql().vformat(text, (), values)
        if not only and "op.execute(" in line:
            value = escaped(value)
        done += [line[place : found.start()].format_map(values), literal(_bare(value))]
        place = found.end()
    return "".join([*done, line[place:].format_map(values)])


def _bare(value: Any) -> str:  # noqa: ANN401
    return value.bare if isinstance(value, Relation) else str(value)


def op_execute(statement: str) -> str:
    """Return the line of a revision that runs a statement."""
    return f"op.execute({literal(escaped(statement))})"
