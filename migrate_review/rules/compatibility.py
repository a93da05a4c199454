"""Checks for changes that break the running application, which is the old one until the next release."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from migrate_review.rules import difference, squawk
from migrate_review.rules.case import attempted, short
from migrate_review.rules.findings import Finding, Severity
from migrate_review.rules.names import Identifier, Relation, shown, sql_text
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from migrate_review.observation import Catalog, Table
    from migrate_review.rules.case import Case
    from migrate_review.rules.squawk import Remark

# squawk's names, in renaming-object, for objects that applications do not use by name.
_NOBODY_CALLS = ("an index", "a constraint", "a trigger", "a policy", "a type value")
# PostgreSQL's message about a NOT NULL column without a value for existing rows.
_LACKING = re.compile(r'column "(.+?)" of relation "(.+?)" contains null values')
_SAVEPOINT = re.compile(r"rollback\s+((work|transaction)\s+)?to\b", re.IGNORECASE)
_RENAMED = re.compile(r"""([\w."]+)(?:\([^)]*\))?\s+rename\s+to\s+([\w."]+)""", re.IGNORECASE)
# The rule for each kind of object that an application uses by name. The kinds have the catalog's names.
_GONE = {
    "view": "ban-drop-view",
    "materialized view": "ban-drop-view",
    "function": "ban-drop-function",
    "procedure": "ban-drop-function",
    "aggregate": "ban-drop-function",
    "sequence": "ban-drop-sequence",
}
# Objects that count only if a statement drops them: applications call no trigger's function, and a column's sequence
# is dropped with the column.
_NOT_CALLED = re.compile(r"\n RETURNS (event_)?trigger\n|owned by ")
_ENTRY = re.compile(rf"(?P<kind>{'|'.join(sorted(_GONE, key=len, reverse=True))}) (?P<name>.*)", re.DOTALL)


def tables_and_columns_gone(case: Case) -> Iterator[Finding]:
    """Yield dropped tables and columns, which the running application may still use."""
    observation = case.observation
    if observation.after is None:
        return
    rows = observation.rows
    for table in difference.gone_tables(observation.before, observation.after):
        evidence = f"{table.name} had {len(table.columns)} columns and {rows.get(table.name, 0)} rows"
        yield case.found(RULES["ban-drop-table"], evidence, table=table.name)
    for was, now in difference.kept_tables(observation.before, observation.after):
        there = {column.name: column for column in now.columns}
        for column in difference.gone_columns(was, now):
            evidence = f"the upgrade drops {was.name}.{column.name} ({column.type}) from {rows.get(was.name, 0)} rows"
            found = case.found(RULES["ban-drop-column"], evidence, table=was.name, column=column.name)
            other = there.get(column.name)
            if other is not None:
                # Queries still work. The review does not know whether the new column has the old values.
                found = replace(
                    found,
                    severity=Severity.WARNING,
                    message=f"{was.name}.{column.name} is another column after this revision."
                    " The values are lost unless the revision copies them.",
                    evidence=f"{evidence}, and {now.name}.{other.name} ({other.type}) takes its place",
                )
            yield found


def renames(case: Case) -> Iterator[Finding]:
    """Yield renamed tables and columns, which the running application uses by the old name."""
    observation = case.observation
    if observation.after is None:
        return
    for was, now in difference.kept_tables(observation.before, observation.after):
        lacking = _lacking(observation.after, was)
        if was.name != now.name and lacking is not None:
            evidence = f"the upgrade renames it to {now.name}, and {lacking}"
            moved = was.name.rpartition(".")[2] == now.name.rpartition(".")[2]
            rule = "ban-set-schema" if moved else "renaming-table"
            yield case.found(RULES[rule], evidence, old=Relation(was.name), new=Relation(now.name))
        for old, new in difference.kept_columns(was, now):
            if old.name != new.name:
                evidence = f"the upgrade renames it to {new.name}"
                names = {"table": now.name, "type": new.type}
                names |= {"old": Identifier(old.name), "new": Identifier(new.name)}
                yield case.found(RULES["renaming-column"], evidence, **names)


def _lacking(after: Catalog, was: Table) -> str | None:
    """Return why no view replaces a renamed table, or None if a view does, or a table, which has its own rule."""
    if after.table_named(was.name) is not None:
        return None
    view = after.views.get(was.name)
    if view is None:
        return f"nothing has the name {was.name}"
    missing = [column.name for column in was.columns if column.name not in view.columns]
    if missing:
        return f"the view {was.name} lacks {', '.join(missing)}"
    return None if view.writable else f"the view {was.name} refuses INSERT, UPDATE or DELETE"


def required_columns(case: Case) -> Iterator[Finding]:
    """Yield the columns for which inserts of the running application lack a value."""
    refused = _refused(case)
    if refused is not None:
        table, column = refused
        names = {"table": table, "column": column, "type": _type_of(case, table, column)}
        yield case.found(RULES["adding-required-field"], _failure(case), **names)
    before, after = case.observation.before, case.observation.after
    if after is not None:
        yield from _required_columns_added(case, before, after, refused)
        yield from _defaults_dropped(case, before, after)


def _refused(case: Case) -> tuple[str, str] | None:
    """Return the table and the column that PostgreSQL refused to add, because the rows have no value for it."""
    lacking = _LACKING.search(_failure(case))
    if lacking and "adding-required-field" in case.squawk_on(len(attempted(case.observation)) - 1):
        return Identifier(lacking.group(2)).sql, lacking.group(1)
    return None


def _failure(case: Case) -> str:
    return (case.observation.refused or case.observation.upgrade).failure or ""


def _type_of(case: Case, table: str, column: str) -> str:
    """Return the type of a column after the revision, by its table's bare name."""
    after = case.observation.after
    for each in after.tables if after is not None else ():
        if Relation(each.name).own.sql == table:
            return next((one.type for one in each.columns if one.name == column), "text")
    return "text"


def _required_columns_added(
    case: Case, before: Catalog, after: Catalog, refused: tuple[str, str] | None
) -> Iterator[Finding]:
    """Yield the new columns that need a value, without the one that PostgreSQL refused with the test rows."""
    kept = {now.oid for _, now in difference.kept_tables(before, after)}
    for table, column in difference.new_columns(before, after):
        given = column.default is not None or column.generated or column.identity
        known = (Relation(table.name).own.sql, column.name) == refused
        if table.oid in kept and column.not_null and not given and not known:
            evidence = f"{table.name}.{column.name} is new and NOT NULL, and has no default"
            names = {"table": table.name, "column": column.name, "type": column.type}
            yield case.found(RULES["adding-required-field"], evidence, **names)


def _defaults_dropped(case: Case, before: Catalog, after: Catalog) -> Iterator[Finding]:
    for was, now in difference.kept_tables(before, after):
        for old, new in difference.kept_columns(was, now):
            if old.default is not None and new.default is None and new.not_null and not new.identity:
                evidence = f"the upgrade drops DEFAULT {old.default}"
                yield case.found(RULES["ban-drop-default"], evidence, table=now.name, column=new.name)


def enum_values(case: Case) -> Iterator[Finding]:
    """Yield removed and renamed enum labels, which the running application may still write."""
    observation = case.observation
    if observation.after is None:
        return
    for type_, labels in observation.before.enums.items():
        now = dict(observation.after.enums.get(type_, ()))
        if not now:
            continue  # a dropped type: other rules check its columns
        for oid, label in labels:
            if oid in now and now[oid] != label:
                evidence = f"the upgrade renames the label of {type_} to {now[oid]}"
                names = {"type": type_, "old": label, "new": now[oid], "new_label": sql_text(now[oid])}
                yield case.found(RULES["enum-value-renamed"], evidence, **names)
            elif label not in now.values():
                evidence = f"after the upgrade, {type_} has only {', '.join(now.values())}"
                yield case.found(RULES["enum-value-removed"], evidence, type=type_, old=label)


def squawk_remarks(case: Case) -> Iterator[Finding]:
    """Yield squawk's remarks that need no measurement, unless the schema shows that they do not matter."""
    for remark in case.remarks:
        sql = short(attempted(case.observation)[remark.statement].sql)
        if remark.rule == "transaction-nesting" and _SAVEPOINT.match(sql):
            continue  # squawk mistakes ROLLBACK TO SAVEPOINT for the end of a transaction
        if remark.rule == "renaming-object":
            yield from _renamed(case, remark)
        elif remark.rule in _PASSED_ON:
            whole = " ".join(attempted(case.observation)[remark.statement].sql.split())
            yield case.found(RULES[remark.rule], f"{sql}: {remark.message}", sql=whole)
        elif remark.rule not in RULES:
            # A rule that this version of squawk has added. Report it without an explanation.
            page = f"# https://squawkhq.com/docs/{remark.rule}"
            yield Finding(case.revision.id, remark.rule, Severity.NOTE, remark.message, sql, page)


_PASSED_ON = squawk.AS_REPORTED - {"renaming-object", "prefer-robust-stmts"} - {
    "ban-concurrent-index-creation-in-transaction"  # PostgreSQL refuses it: that is measured
}  # fmt: skip


def _renamed(case: Case, remark: Remark) -> Iterator[Finding]:
    """Yield the rename of an object other than a table, unless another object has taken its name."""
    sql = attempted(case.observation)[remark.statement].sql
    after = case.observation.after
    renamed = _RENAMED.search(sql)
    if after is None or any(kind in remark.message for kind in _NOBODY_CALLS):
        return
    old, new = (shown(name) for name in renamed.groups()) if renamed else ("the old name", "the new name")
    if old not in after.enums and not any(entry.endswith(f" {old}") for entry in after.others):
        yield case.found(RULES[remark.rule], f"{short(sql)}: {remark.message}", old=old, new=new)


def objects_gone(case: Case) -> Iterator[Finding]:
    """Yield the views, functions and sequences that no object of their name replaces, and types that moved."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    renamed = {shown(found[1]) for each in case.remarks if (found := _renaming(case, each))}
    schemas = tuple(f"{name}." for name in renamed if f"schema {name}" in before.others.keys() - after.others.keys())
    for entry in sorted(before.others.keys() - after.others.keys()):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            continue
        name, rule = found["name"], _GONE[found["kind"]]
        if _NOT_CALLED.search(before.others[entry]) and not any(each.rule == rule for each in case.remarks):
            continue
        if name.partition("(")[0] in renamed or name.startswith(schemas):
            continue  # the rename has its own finding
        yield case.found(RULES[rule], f"{entry} is gone after the upgrade", name=name)
    yield from _types_renamed(case, schemas, renamed)


def _renaming(case: Case, remark: Remark) -> re.Match[str] | None:
    if remark.rule != "renaming-object":
        return None
    return _RENAMED.search(attempted(case.observation)[remark.statement].sql)


def _types_renamed(case: Case, schemas: tuple[str, ...], known: Container[Relation]) -> Iterator[Finding]:
    """Yield the types with another name or schema. A type that is gone was not used by a column."""
    before, after = (_types(each) for each in (case.observation.before, case.observation.after))
    for was, definition in before.items():
        if was in after or was in known or was.startswith(schemas):
            continue
        new = {name: each for name, each in after.items() if name not in before}
        now = next((name for name, each in new.items() if Relation(name).bare == Relation(was).bare), None)
        now = now or next((name for name, each in new.items() if each == definition), None)
        if now is not None:
            yield case.found(RULES["renaming-object"], f"the upgrade renames it to {now}", old=was, new=now)


def _types(catalog: Catalog | None) -> dict[str, str]:
    """Return the types by name: an enum with the ids of its labels, and any other type with its definition."""
    if catalog is None:
        return {}
    found = {name.removeprefix("type "): text for name, text in catalog.others.items() if name.startswith("type ")}
    return found | {name: str([oid for oid, _ in labels]) for name, labels in catalog.enums.items()}
