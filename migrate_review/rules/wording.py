"""Returns the names, definitions and types for the fixes of lock rules, from the schema before and after.

If a partitioned table needs other statements, the fix uses these.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.observation import Index
from migrate_review.rules import difference
from migrate_review.rules.names import Identifier, Relation, listed, op_execute, sql_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from migrate_review.observation import Catalog, Column, Constraint
    from migrate_review.rules.case import Run

_TYPES = re.compile(r"""\balter\s+(?:column\s+)?"?(\w+)"?\s+(?:set\s+data\s+)?type\b""", re.IGNORECASE)
_DOMAIN = re.compile(
    r"alter\s+domain\s+(?P<domain>\S+)\s+add\s+(?:constraint\s+(?P<name>\S+)\s+)?(?P<check>check\s*\(.*\))",
    re.IGNORECASE | re.DOTALL,
)
_KINDS = {
    "adding-foreign-key-constraint": "f",
    "constraint-missing-not-valid": "cxf",
    "disallowed-unique-constraint": "u",
    "adding-serial-primary-key-field": "p",
}
_LONGEST_NAME = 63

_UNKNOWN = "# The object does not exist after the revision. The rule: migrate review --explain "


def names(rule: str, table: str, sql: str, run: Run) -> dict[str, str]:
    """Return the names for a rule's texts. A name ``fix`` is code that replaces the rule's own fix."""
    found = {"table": table, "name": "a constraint", "column": "a column", "other": "another table", "columns": ""}
    found |= {"old": "the old type", "new": "the new type", "unique": "False", "fix": _UNKNOWN + rule}
    if rule == "require-concurrent-reindex":
        return {"table": table}
    if rule == "ban-alter-domain-with-add-constraint":
        return found | _of_domain(sql)
    if run.after is None:
        return found
    if rule in _KINDS:
        found |= _of_constraint(rule, table, sql, run.before, run.after)
    elif rule == "require-concurrent-index-creation":
        found |= _of_index(table, sql, run.before, run.after)
    else:
        found |= _of_column(rule, table, sql, run.before, run.after)
    return _without_empty(found)


def index_on(table: str, name: str, columns: tuple[str, ...], catalog: Catalog) -> dict[str, str]:
    """Return the ``fix`` for an index that a partitioned table lacks, or nothing for any other table."""
    partitions = _partitions(table, catalog)
    if not partitions:
        return {}
    keys = ", ".join(Identifier(column).sql for column in columns)
    definition = f"CREATE INDEX {Identifier(name).sql} ON {table} USING btree ({keys})"
    index = Index(name, definition, columns, unique=False, valid=True, constraint=False, partial=False)
    return {"fix": _build_on_partitions(table, index, partitions)}


def root(table: str, catalog: Catalog | None) -> str:
    """Return the partitioned table of a partition, or the table itself."""
    parents = difference.parents(catalog) if catalog is not None else {}
    while table in parents:
        table = parents[table]
    return table


def _without_empty(found: dict[str, str]) -> dict[str, str]:
    """Return the names without an empty ``fix``, so that the rule's own fix is used."""
    return found if found["fix"] else {key: value for key, value in found.items() if key != "fix"}


def _of_domain(sql: str) -> dict[str, str]:
    found = _DOMAIN.search(sql)
    if found is None:
        return {}
    name = found["name"] or f"{found['domain'].rpartition('.')[2]}_check"
    add = f"ALTER DOMAIN {found['domain']} ADD CONSTRAINT {name} {' '.join(found['check'].split())} NOT VALID"
    validate = f"ALTER DOMAIN {found['domain']} VALIDATE CONSTRAINT {name}"
    return {"fix": _steps([add], [validate])}


def _of_constraint(rule: str, table: str, sql: str, before: Catalog, after: Catalog) -> dict[str, str]:
    candidates = [
        constraint
        for owner, constraint in difference.new_constraints(before, after)
        if owner.name == table and constraint.kind in _KINDS[rule]
    ]
    # The constraint that the statement names. If the server chose the name, the statement does not contain it. A
    # constraint that replaces another one has the old name.
    named = [each for each in _constraints(table, after) if each.kind in _KINDS[rule] and contains_name(sql, each.name)]
    if not named and not candidates:
        return {}
    [constraint, *_] = named or candidates
    return {
        "name": constraint.name,
        "columns": listed(constraint.columns),
        "definition": constraint.definition,
        "other": constraint.references or "another table",
        "fix": _fix_of_constraint(table, constraint, before, after),
    }


def _constraints(table: str, catalog: Catalog) -> Sequence[Constraint]:
    found = catalog.table_named(table)
    return found.constraints if found is not None else ()


def contains_name(sql: str, name: str) -> bool:
    """Return whether a statement names it."""
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", sql) is not None


def _fix_of_replaced(table: str, constraint: Constraint, before: Catalog, after: Catalog) -> str:
    """Return the fix for a constraint on new columns, or one that replaces another, or "" for any other."""
    name = Identifier(constraint.name).sql
    new = [
        f"ALTER TABLE {table} ADD COLUMN {Identifier(column.name).sql} {column.type}"
        for column, was in _columns(table, before, after)
        if was is None and column.name in constraint.columns
    ]
    gone = [
        each.name
        for each in _constraints(table, before)
        if each.oid != constraint.oid and (each.name == constraint.name or each.kind == constraint.kind == "p")
    ]
    drop = "".join(f"DROP CONSTRAINT {Identifier(each).sql}, " for each in gone)
    if constraint.kind in "fc" and (new or gone):
        add = f"ALTER TABLE {table} {drop}ADD CONSTRAINT {name} {constraint.definition} NOT VALID"
        return _steps([*new, add], [f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}"])
    owner = after.table_named(table)
    if constraint.kind == "p" and gone and owner is not None and not new:
        [index] = [each for each in owner.indexes if each.name == constraint.name]
        taken = f"ALTER TABLE {table} {drop}ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}"
        return f"{_build(table, index)}\n{op_execute(taken)}"
    return ""


def _fix_of_constraint(table: str, constraint: Constraint, before: Catalog, after: Catalog) -> str:
    partitions = _partitions(table, after)
    name = Identifier(constraint.name).sql
    if constraint.kind == "x":
        return (
            "# PostgreSQL checks an exclusion constraint while it adds it, under ACCESS EXCLUSIVE. Add it while the\n"
            "# table is small or idle, or to a new table to which the rows are copied in batches."
        )
    if not partitions:
        return _fix_of_replaced(table, constraint, before, after)
    if constraint.kind in "up":
        owner = after.table_named(table)
        own = [each for each in owner.indexes if each.name == constraint.name] if owner else []
        return _build_on_partitions(table, own[0], partitions) if own else ""
    if constraint.kind == "f":
        # Before PostgreSQL 18, a foreign key of a partitioned table cannot be NOT VALID. It reuses valid ones of the
        # partitions.
        add = [f"ALTER TABLE {each} ADD CONSTRAINT {name} {constraint.definition} NOT VALID" for each in partitions]
        validate = [f"ALTER TABLE {each} VALIDATE CONSTRAINT {name}" for each in partitions]
        return _steps(add, validate, [f"ALTER TABLE {table} ADD CONSTRAINT {name} {constraint.definition}"])
    return ""


def _of_index(table: str, sql: str, before: Catalog, after: Catalog) -> dict[str, str]:
    owner = after.table_named(table)
    named = [index for index in (owner.indexes if owner else ()) if contains_name(sql, index.name)]
    new = [index for owner, index in difference.new_indexes(before, after) if owner.name == table]
    for index in (named or new)[:1]:
        partitions = _partitions(table, after)
        fix = _build_on_partitions(table, index, partitions) if partitions else _build(table, index)
        return {
            "name": index.name,
            "columns": listed(index.columns),
            "unique": str(index.unique),
            "fix": "" if _is_plain(index) and not partitions else fix,
        }
    return {}


def _is_plain(index: Index) -> bool:
    """Return whether ``op.create_index`` with only columns creates this index."""
    columns = ", ".join(Identifier(column).sql for column in index.columns)
    return _method(index) == f"USING btree ({columns})"


def _method(index: Index) -> str:
    """Return the part of an index's definition that begins with its method."""
    return f"USING {index.definition.partition(' USING ')[2]}"


def _create(index: Index) -> str:
    return f"CREATE {'UNIQUE ' if index.unique else ''}INDEX"


def _build(table: str, index: Index) -> str:
    built = f"{_create(index)} CONCURRENTLY IF NOT EXISTS {Identifier(index.name).sql} ON {table} {_method(index)}"
    return f"with op.get_context().autocommit_block():\n    {op_execute(built)}"


def _build_on_partitions(table: str, index: Index, partitions: Sequence[str]) -> str:
    own = {each: Identifier(f"{Relation(each).bare}_{index.name}"[:_LONGEST_NAME]).sql for each in partitions}
    name = Identifier(index.name).sql
    built = (
        f"{_create(index)} CONCURRENTLY IF NOT EXISTS {own[each]} ON {each} {_method(index)}" for each in partitions
    )
    schema = Relation(table).parts[0]
    qualified = f"{Identifier(schema).sql}." if schema else ""
    attached = (f"ALTER INDEX {qualified}{name} ATTACH PARTITION {_schema_of(each)}{own[each]}" for each in partitions)
    return "\n".join([
        "# PostgreSQL builds indexes concurrently on partitions only, not on the partitioned table:",
        op_execute(f"{_create(index)} IF NOT EXISTS {name} ON ONLY {table} {_method(index)}"),
        "with op.get_context().autocommit_block():",
        *(f"    {op_execute(each)}" for each in built),
        *(op_execute(each) for each in attached),
    ])  # fmt: skip


def _schema_of(table: str) -> str:
    schema = Relation(table).parts[0]
    return f"{Identifier(schema).sql}." if schema else ""


def _partitions(table: str, after: Catalog) -> list[str]:
    """Return the partitions of a partitioned table that store rows, at any depth."""
    parents = difference.parents(after)
    partitioned = set(parents.values())
    return sorted(each for each in parents if root(each, after) == table and each not in partitioned)


def _of_column(rule: str, table: str, sql: str, before: Catalog, after: Catalog) -> dict[str, str]:
    for column, was in _columns(table, before, after):
        if rule == "adding-field-with-default" and was is None:
            if column.default is not None or column.generated or column.identity:
                return _added(column)
        elif was is not None and rule == "changing-column-type" and {column.name, was.name} & {*_TYPES.findall(sql)}:
            second = Identifier(f"{column.name}_new")
            old, new = was.type, column.type
            if old == new:
                was_sorted, is_sorted = (_collation(table, column.name, each) for each in (before, after))
                if was_sorted == is_sorted:
                    old = f"{old} with other values"  # because USING computes them
                else:
                    old, new = f"{old} COLLATE {was_sorted}", f"{new} COLLATE {is_sorted}"
            found = {"column": column.name, "old": old, "new": new, "second": second, "fix": ""}
            return found | _of_enum(was.type, column.type, before, after)
        elif rule == "adding-not-nullable-field" and column.not_null and _is_set(column.name, was, sql):
            check = Identifier(f"ck_{Relation(table).bare}_{column.name}_not_null"[:_LONGEST_NAME])
            fix = "" if was is not None else _required_in_steps(table, column, check)
            return {"column": column.name, "check": check, "fix": fix}
    return {}


def _required_in_steps(table: str, column: Column, check: Identifier) -> str:
    """Return the fix for a new column that is NOT NULL."""
    name = Identifier(column.name).sql
    alter = f"ALTER TABLE {table}"
    add = [f"{alter} ADD COLUMN {name} {column.type}"]
    if column.default is not None:
        add.append(f"{alter} ALTER COLUMN {name} SET DEFAULT {column.default}")
    checked = [f"{alter} ADD CONSTRAINT {check.sql} CHECK ({name} IS NOT NULL) NOT VALID"]
    required = [
        f"{alter} VALIDATE CONSTRAINT {check.sql}",
        f"{alter} ALTER COLUMN {name} SET NOT NULL",
        f"{alter} DROP CONSTRAINT {check.sql}",
    ]
    first, rest = _steps(add), _steps([], checked, required).partition("\n")[2]
    return f"{first}\n# then fill the existing rows in batches, each in its own transaction\n{rest}"


def _collation(table: str, column: str, catalog: Catalog) -> str:
    settings = catalog.others.get(f"column settings {table}.{Identifier(column).sql}", "")
    found = re.search(r"(?:^|; )collation ([^;]+)", settings)
    return found.group(1) if found is not None else '"default"'


def _is_set(name: str, was: Column | None, sql: str) -> bool:
    """Return whether a statement makes a column NOT NULL. The revision itself may add the column."""
    set_in = re.findall(r"""alter\s+(?:column\s+)?("(?:[^"]|"")+"|\S+)\s+set\s+not\s+null""", sql, re.IGNORECASE)
    if set_in:
        return name in {each.strip('"').replace('""', '"') for each in set_in}
    return was is not None and not was.not_null


def _of_enum(old: str, new: str, before: Catalog, after: Catalog) -> dict[str, str]:
    """Return the names for an enum that was replaced to add labels."""
    if new not in after.enums or new not in before.enums:
        return {}
    labels = [label for _, label in before.enums[new]]
    added = [label for _, label in after.enums[new] if label not in labels]
    words = {"old": f"the old {old}", "new": f"another {new}"} if old == new else {}
    if not added or not {label for _, label in after.enums[new]} > set(labels):
        return words
    values = (op_execute(f"ALTER TYPE {new} ADD VALUE IF NOT EXISTS {sql_text(label)}") for label in added)
    return words | {
        "fix": "\n".join(["with op.get_context().autocommit_block():", *(f"    {each}" for each in values)])
    }


def _columns(table: str, before: Catalog, after: Catalog) -> Iterator[tuple[Column, Column | None]]:
    """Yield each column of an existing table, with its former state."""
    now = after.table_named(table)
    was = before.table(now.oid) if now is not None else None
    if now is not None and was is not None:
        old = {column.number: column for column in was.columns}
        yield from ((column, old.get(column.number)) for column in now.columns)


def _added(column: Column) -> dict[str, str]:
    found = {"column": column.name, "type": column.type, "default": column.default or "", "fix": ""}
    if column.generated:
        found["fix"] = (
            "# PostgreSQL computes a stored generated column for every row under ACCESS EXCLUSIVE. Add a plain\n"
            "# column instead, fill it in batches, and let the application or a trigger update it."
        )
    elif column.identity or (column.default or "").startswith("nextval("):
        found["fix"] = (
            "# PostgreSQL numbers every row under ACCESS EXCLUSIVE. Add a nullable column instead, fill it in\n"
            "# batches, and add the sequence when every row has a value."
        )
    return found


def _steps(*steps: Sequence[str]) -> str:
    """Return code for steps, each after the first in its own revision."""
    lines: list[str] = []
    for position, statements in enumerate(steps):
        lines.append("# the next revision:" if position else "# this revision:")
        lines += [op_execute(statement) for statement in statements]
    return "\n".join(lines)
