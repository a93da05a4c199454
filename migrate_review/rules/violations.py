"""Writes the queries for rows that violate a revision's constraints, in the schema before the revision.

Each query returns the violating rows or values. It is None if no query in the old schema can find them, because the
constraint is about a new object or is too complex.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier
from migrate_review.rules import difference, type_changes
from migrate_review.rules.row_changes import may_fail
from migrate_review.sql_text import bare, in_parentheses, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Catalog, Column, Constraint, Index, Observation, Table

_KINDS = {"p": "unique", "u": "unique", "f": "foreign_key", "c": "check", "x": "exclusion"}
_NULL_IN_NEW_COLUMN = "23502"

_CHECK = re.compile(r"CHECK (?P<condition>\(.*\))(?P<own> NO INHERIT)?", re.DOTALL)
_REFERENCES = re.compile(r"REFERENCES (?P<table>(?:\"(?:[^\"]|\"\")+\"|[\w.$])+)(?=\()")
_EXCLUDE = re.compile(r"EXCLUDE USING \w+ (?=\()")
_OPERATOR = re.compile(r" WITH (?P<operator>OPERATOR\([^)]+\)|\S+)$")
_KEY = re.compile(r"^(?:PRIMARY KEY|UNIQUE)(?: NULLS NOT DISTINCT)? (?=\()")
_INDEX = re.compile(r" USING \w+ (?=\()")
_AFTER_KEY = re.compile(r"(?: [\w.]+_ops(?:\([^)]*\))?| ASC| DESC| NULLS (?:FIRST|LAST))+$")
_WITHOUT_OVERLAPS = " WITHOUT OVERLAPS"
_DOMAIN_CHECK = re.compile(r"(?P<name>(?:\"(?:[^\"]|\"\")+\"|\S+)) CHECK (?P<condition>\(.*\))", re.DOTALL)
_DOMAIN_BASE = re.compile(r"^(?P<before>.*?) [tf](?= |$)", re.DOTALL)
_DOMAIN_NOT_NULL = re.compile(r"(?P<name>(?:\"(?:[^\"]|\"\")+\"|\S+)) NOT NULL$")
# The value of a domain in its CHECK, but not the word in a text or a name.
_VALUE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\b(?P<value>VALUE)\b")
_DEFAULT_COLLATION = 'pg_catalog."default"'
# A sequence as the catalog writes it.
_SEQUENCE = re.compile(
    r"\w+ (?P<start>-?\d+) (?P<step>-?\d+) (?P<least>-?\d+) (?P<most>-?\d+) \d+ (?P<cycles>\w+) owned by"
    r" (?P<table>.+)\.(?P<column>\"(?:[^\"]|\"\")+\"|[^\".]+)",
    re.DOTALL,
)
_LIMITS = ("start", "step", "least", "most")
_COUNTS_UP = re.compile(r"\bnextval\(", re.IGNORECASE)


@dataclass(frozen=True)
class Check:
    """A requirement of a revision for the rows of a table. ``kind`` has the names of ``plan`` in docs/contract.md.

    ``reads`` are the tables whose rows decide it.
    """

    kind: str
    table: str
    columns: tuple[str, ...]
    name: str | None
    query: str | None
    reads: tuple[str, ...] = field(default=())


def checks(observation: Observation) -> Iterator[Check]:
    """Yield the upgrade's requirements for the rows that existed before it."""
    before, after = observation.before, observation.after
    if after is None:
        return
    kept = list(difference.kept_tables(before, after))
    converted = {was.oid: conversions(was, now, observation) for was, now in kept}
    for was, now in kept:
        names = _Names(was, now, before, after, converted)
        yield from _of_constraints(names)
        yield from _of_indexes(names)
        yield from _of_columns(names, observation)
        yield from _of_computed(names)
        yield from _of_sequences(names)
        yield from _of_domains(names)
        yield from _of_partitions(names)
        yield from _of_detached(names)


@dataclass(frozen=True)
class _Names:
    """A table before and after the revision, and the schemas that it is in.

    ``converted`` maps each table to the SQL of new column values: those of a change of type, collation or expression
    that can make values equal, or violate a CHECK.
    """

    was: Table
    now: Table
    before: Catalog
    after: Catalog
    converted: Mapping[int, Mapping[str, str]]

    @property
    def conversions(self) -> Mapping[str, str]:
        """The new values of this table's columns."""
        return self.converted.get(self.was.oid, {})

    @property
    def columns(self) -> Mapping[str, Column]:
        """Return the columns that existed before, by their names after the revision."""
        return {new.name: old for old, new in difference.kept_columns(self.was, self.now)}

    def before_of(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns' names before the revision; a new column has its own."""
        known = self.columns
        return tuple(known[each].name if each in known else each for each in columns)

    def owners(self) -> Iterator[Table]:
        """Yield the parents that this table has before and after the revision, as a partition or by inheritance."""
        was, now = (
            {owner for owner, heir in difference.heirs(catalog) if heir == table.name}
            for catalog, table in ((self.before, self.was), (self.after, self.now))
        )
        for owner in now:
            found = self.after.table_named(owner)
            before = self.before.table(found.oid) if found is not None else None
            if found is not None and before is not None and before.name in was:
                yield found

    def inherits(self, definition: str) -> bool:
        """Return whether the rows of this table are checked together with those of its parent."""
        is_partition = self.now.partition_rows is not None
        return any(
            definition
            in {*(each.definition for each in owner.constraints), *(_keys_of(each) for each in owner.indexes)}
            for owner in self.owners()
            if is_partition or definition.startswith("CHECK")
        )

    def inherits_column(self, name: str, *, not_null: bool = False) -> bool:
        """Return whether the parent table has the column. With ``not_null``, NULL must be refused there, too."""
        return any(
            column.name == name and (column.not_null or not not_null)
            for owner in self.owners()
            for column in owner.columns
        )

    def converts(self, *texts: str) -> bool:
        """Return whether SQL is about a column whose values change, so that PostgreSQL checks it again."""
        return any(_mentions(text, each) for each in self.conversions for text in texts)

    def source(self, *texts: str, only: bool = False) -> str | None:
        """Return a FROM item with the columns' new names, for SQL that contains ``texts``.

        ``only`` leaves out the rows of tables that inherit from this one. Return None if a column gets values that
        are unknown before the revision.
        """
        table = f"ONLY {self.was.name}" if only and _has_children(self.before, self.was.name) else self.was.name
        known = self.columns
        changed = [each for each in self.now.columns if each.name not in known or known[each.name].name != each.name]
        if not self.converts(*texts) and not any(_mentions(text, each.name) for each in changed for text in texts):
            return table
        listed = []
        for each in self.now.columns:
            if each.name in known:
                value = self.conversions.get(each.name, identifier(known[each.name].name))
                listed.append(f"{value} AS {identifier(each.name)}")
            elif each.identity or (each.default is not None and _COUNTS_UP.search(each.default)):
                if any(_mentions(text, each.name) for text in texts):
                    return None
            else:
                listed.append(f"({each.default or 'NULL'})::{each.type} AS {identifier(each.name)}")
        return f"(SELECT tableoid, ctid, {', '.join(listed)} FROM {table}) AS rows"  # noqa: S608

    def is_composite(self, column: str) -> bool:
        """Return whether a column has a composite type, for which IS NULL tests the fields."""
        type_ = next((each.type for each in self.now.columns if each.name == column), "")
        others = self.before.others.get(f"type {type_}", "")
        return others.startswith("c ") or self.before.table_named(type_) is not None

    def null(self, column: str, alias: str = "", *, filled: bool = False) -> str:
        """Return the condition that a column is null, or filled."""
        word = "DISTINCT FROM NULL" if self.is_composite(column) else "NULL"
        negated = filled if word == "NULL" else not filled
        return f"{alias}{identifier(column)} IS {'NOT ' if negated else ''}{word}"


def conversions(was: Table, now: Table, observation: Observation) -> dict[str, str]:
    """Return the SQL of the values that columns get from a change of their type, collation or expression.

    The keys are the names of the columns after the revision.
    """
    statements = [each.sql for each in observation.upgrade.statements if type_changes.changes_type(each.sql)]
    found = {}
    for old, new in difference.kept_columns(was, now):
        if new.generated:
            # A column that has another name only changes the expression's text.
            if statements and (old.default, old.type) != (new.default, new.type):
                found[new.name] = f"({new.default})::{new.type}"
            continue
        using = type_changes.using_of(statements, (was.name, now.name), (old.name, new.name)) if statements else None
        value = f"({using or identifier(old.name)})::{new.type}"
        if old.collation != new.collation:
            found[new.name] = f"{value} COLLATE {new.collation or _DEFAULT_COLLATION}"
        elif statements and not type_changes.keeps_values(identifier(old.name), old.type, new.type, using):
            found[new.name] = value
    return found


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _has_children(catalog: Catalog, table: str) -> bool:
    """Return whether other tables inherit from a table, apart from its partitions."""
    partitions = difference.partitions(catalog)
    return any(owner == table and heir not in partitions for owner, heir in difference.heirs(catalog))


def _keys_of(index: Index) -> str:
    return index.definition.partition(" USING ")[2]


def _of_constraints(names: _Names) -> Iterator[Check]:
    held = {each.definition for each in names.was.constraints if each.validated}
    ids = {each.oid for each in names.was.constraints if each.validated and each.oid}
    for constraint in names.now.constraints:
        if constraint.kind not in _KINDS or not constraint.validated:
            continue
        theirs = _referenced(names, constraint) if constraint.kind == "f" else None
        is_converted = names.converts(constraint.definition) or (
            theirs is not None and theirs.converts(constraint.definition.partition(" REFERENCES ")[2])
        )
        is_held = constraint.oid in ids or constraint.definition in held
        if (is_held and not is_converted) or names.inherits(constraint.definition):
            continue
        reads = tuple(dict.fromkeys((names.was.name, theirs.was.name if theirs is not None else names.was.name)))
        columns = names.before_of(constraint.columns)
        yield Check(_KINDS[constraint.kind], names.was.name, columns, constraint.name, _query(names, constraint), reads)


def _query(names: _Names, constraint: Constraint) -> str | None:
    definition = constraint.definition
    if constraint.kind == "f":
        return _orphans(names, constraint)
    if constraint.kind == "c":
        found = _CHECK.match(definition)
        source = names.source(definition, only=bool(found and found["own"]))
        return f"SELECT * FROM {source} WHERE NOT {found['condition']}" if found and source else None  # noqa: S608
    if constraint.kind == "x":
        return _overlaps(names, definition)
    if _WITHOUT_OVERLAPS in definition:
        return _periods(names, definition)
    return _duplicates(names, constraint.columns, equal_nulls="NULLS NOT DISTINCT" in definition)


def _duplicates(names: _Names, columns: tuple[str, ...], *, equal_nulls: bool = False) -> str | None:
    keys, source = _keys_in(names, columns)
    conditions = [] if equal_nulls else [names.null(each, filled=True) for each in keys]
    return source and _repeated(source, [identifier(each) for each in keys], conditions)


def _repeated(source: str, keys: list[str], conditions: list[str]) -> str:
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    listed = ", ".join(keys)
    source += " AS rows" if source.endswith(")") else ""
    return f"SELECT {listed}, count(*) FROM {source}{where} GROUP BY {listed} HAVING count(*) > 1"  # noqa: S608


def _referenced(names: _Names, constraint: Constraint) -> _Names | None:
    """Return the table to which a foreign key refers, or None if the revision creates that table."""
    now = names.after.table_named(constraint.references or "")
    was = names.before.table(now.oid) if now is not None else None
    return _Names(was, now, names.before, names.after, names.converted) if was is not None and now is not None else None


def _orphans(names: _Names, constraint: Constraint) -> str | None:
    found = _REFERENCES.search(constraint.definition)
    theirs = _referenced(names, constraint)
    if found is None or theirs is None:
        return None
    listed, rest = in_parentheses(constraint.definition[found.end() :])
    own, source = _keys_in(names, constraint.columns)
    target, other = _keys_in(theirs, tuple(bare(each.strip()) for each in split(listed)))
    if source is None or other is None:
        return None
    pairs = zip(target, own, strict=True)
    equal = " AND ".join(f"there.{identifier(their)} = here.{identifier(mine)}" for their, mine in pairs)
    filled = " AND ".join(names.null(each, "here.", filled=True) for each in own)
    refused = f"{filled} AND NOT EXISTS (SELECT FROM {other} AS there WHERE {equal})"
    if rest.startswith(" MATCH FULL") and len(own) > 1:
        # Some columns may be null only if all are.
        empty = " AND ".join(names.null(each, "here.") for each in own)
        refused = f"({refused}) OR NOT ({filled} OR {empty})"
    return f"SELECT here.* FROM {source} AS here WHERE {refused}"  # noqa: S608


def _keys_in(names: _Names, columns: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """Return a key's columns and the FROM item with them. An unchanged column has its name from before the revision."""
    if set(columns) <= names.columns.keys() and not names.conversions.keys() & set(columns):
        return names.before_of(columns), names.source(only=True)
    source = names.source(*columns, only=True)
    return columns, source and source.removesuffix(" AS rows")


def _overlaps(names: _Names, definition: str) -> str | None:
    found = _EXCLUDE.match(definition)
    if found is None:
        return None
    inner, rest = in_parentheses(definition[found.end() :])
    elements: list[tuple[str, str]] = []
    for each in split(inner):
        operator = _OPERATOR.search(each.strip())
        if operator is None:
            return None
        elements.append((_AFTER_KEY.sub("", each.strip()[: operator.start()]), operator["operator"]))
    where = rest.partition(" WHERE ")[2]
    return _in_conflict(names, definition, elements, f" WHERE {where}" if where else "")


def _periods(names: _Names, definition: str) -> str | None:
    """Return the query for a key WITHOUT OVERLAPS: its last column overlaps, and the other columns are equal."""
    found = _KEY.match(definition)
    if found is None:
        return None
    keys = [each.strip() for each in split(in_parentheses(definition[found.end() :])[0])]
    elements = [(each, "=") for each in keys[:-1]] + [(keys[-1].removesuffix(_WITHOUT_OVERLAPS), "&&")]
    return _in_conflict(names, definition, elements, "", refused=f"isempty(a.key_{len(elements)})")


def _in_conflict(
    names: _Names, definition: str, elements: list[tuple[str, str]], where: str, *, refused: str = ""
) -> str | None:
    """Return the query for rows in conflict with another row, and for those that are ``refused`` by themselves."""
    source = names.source(definition, only=True)
    if source is None:
        return None
    keys = ", ".join(f"{key} AS key_{number}" for number, (key, _) in enumerate(elements, start=1))
    rows = f"(SELECT tableoid AS part, ctid AS place, {keys} FROM {source}{where})"  # noqa: S608
    conflict = " AND ".join(
        f"a.key_{number} {each} b.key_{number}" for number, (_, each) in enumerate(elements, start=1)
    )
    other = f"SELECT FROM {rows} AS b WHERE (a.part, a.place) <> (b.part, b.place) AND {conflict}"
    # A row with a NULL has no conflict.
    filled = " AND ".join(f"a.key_{number} IS NOT NULL" for number in range(1, len(elements) + 1))
    alone = f" OR {refused}" if refused else ""
    return f"SELECT a.* FROM {rows} AS a WHERE {filled} AND EXISTS ({other}){alone}"  # noqa: S608


def _of_indexes(names: _Names) -> Iterator[Check]:
    held = {_keys_of(each) for each in names.was.indexes if each.unique and each.valid}
    ids = {each.oid for each in names.was.indexes if each.unique and each.valid and each.oid}
    for index in names.now.indexes:
        if not index.unique or not index.valid or index.constraint:
            continue
        if (index.oid in ids or _keys_of(index) in held) and not names.converts(_keys_of(index)):
            continue
        if names.inherits(_keys_of(index)):
            continue
        columns = names.before_of(index.columns)
        yield Check("unique", names.was.name, columns, index.name, _duplicate_keys(names, index), (names.was.name,))


def _duplicate_keys(names: _Names, index: Index) -> str | None:
    start = _INDEX.search(index.definition)
    if start is None:
        return None
    inner, rest = in_parentheses(index.definition[start.end() :])
    source = names.source(inner, rest, only=True)
    if source is None:
        return None
    keys = [_AFTER_KEY.sub("", each.strip()) for each in split(inner)]
    where = rest.partition(" WHERE ")[2]
    conditions = [where] if where else []
    if "NULLS NOT DISTINCT" not in rest.partition(" WHERE ")[0]:
        conditions += [
            names.null(bare(key), filled=True) if bare(key) in index.columns else f"{key} IS NOT NULL" for key in keys
        ]
    return _repeated(source, keys, conditions)


def _of_columns(names: _Names, observation: Observation) -> Iterator[Check]:
    table = names.was.name
    for old, new in difference.kept_columns(names.was, names.now):
        # The check of the partitioned table includes the rows of its partitions.
        apart = not names.inherits_column(new.name, not_null=True)
        if (
            apart
            and _refuses_null(names.now, new)
            and not _refuses_null(names.was, old)
            and not _is_checked(names.was, old)
        ):
            condition: str | None = names.null(new.name).replace(identifier(new.name), identifier(old.name), 1)
            yield Check("not_null", table, (old.name,), None, f"SELECT * FROM {table} WHERE {condition}", (table,))  # noqa: S608
        condition = "" if names.inherits_column(new.name) else _misfits(names, observation, old, new)
        if condition != "":
            query = f"SELECT * FROM {table} WHERE {condition}" if condition is not None else None  # noqa: S608
            yield Check("type", table, (old.name,), None, query, (table,))
    refused = observation.refused
    if refused is None or refused.sqlstate != _NULL_IN_NEW_COLUMN:
        return
    known = {column.number for column in names.was.columns}
    for new in names.now.columns:
        required = new.number not in known and new.not_null and new.default is None
        named = f'column "{new.name}"' in (refused.failure or "")
        if required and named and not (new.generated or new.identity):
            yield Check("not_null", table, (new.name,), None, f"SELECT * FROM {table}", (table,))  # noqa: S608


def _of_computed(names: _Names) -> Iterator[Check]:
    """Yield the requirements of values that the revision computes: of generated columns, and of indexes.

    A check without violating rows may still raise an error for a value. The revision then fails, too.
    """
    table = names.was.name
    known = {column.number: column for column in names.was.columns}
    for new in names.now.columns:
        old = known.get(new.number)
        if not new.generated or new.default is None or names.inherits_column(new.name):
            continue
        if old is not None and new.name not in names.conversions:
            continue
        if new.not_null:
            query = f"SELECT * FROM {table} WHERE ({new.default}) IS NULL"  # noqa: S608
            yield Check("not_null", table, (new.name,), None, query, (table,))
        refused = type_changes.refused_by(f"({new.default})", new.type) or _fails(new.default)
        if refused and not names.after.is_virtual(names.now.name, new.name):
            yield Check("type", table, (new.name,), None, f"SELECT * FROM {table} WHERE {refused}", (table,))  # noqa: S608
    held = {_keys_of(each) for each in names.was.indexes}
    for index in names.now.indexes:
        if index.unique or index.constraint or _keys_of(index) in held or names.inherits(_keys_of(index)):
            continue
        start = _INDEX.search(index.definition)
        inner, rest = in_parentheses(index.definition[start.end() :]) if start else ("", "")
        where = rest.partition(" WHERE ")[2]
        keys = [_AFTER_KEY.sub("", each.strip()) for each in split(inner)]
        refused = _fails(*keys, *([where] if where else []))
        source = names.source(inner, rest, only=True) if refused else None
        if source is not None:
            query = f"SELECT * FROM {source} WHERE {refused}"  # noqa: S608
            yield Check("type", table, names.before_of(index.columns), index.name, query, (table,))


def _of_sequences(names: _Names) -> Iterator[Check]:
    """Yield the requirement that a new column's sequence has a value for each row."""
    known = {column.number for column in names.was.columns}
    for new in names.now.columns:
        counts_up = new.identity or (new.default is not None and _COUNTS_UP.search(new.default))
        if new.number in known or not counts_up or names.inherits_column(new.name):
            continue
        sequences = [
            found
            for name, text in names.after.others.items()
            if name.startswith("sequence ")
            and name not in names.before.others
            and (found := _SEQUENCE.fullmatch(text))
            and found["table"] == names.now.name
            and bare(found["column"]) == new.name
        ]
        values = type_changes.values_of(new.type, *map(int, sequences[0].group(*_LIMITS))) if sequences else None
        if values is not None and not sequences[0]["cycles"].startswith("t"):
            query = f"SELECT * FROM {names.was.name} OFFSET {values}"  # noqa: S608
            yield Check("type", names.was.name, (new.name,), None, query, (names.was.name,))


def _fails(*expressions: str) -> str:
    """Return a condition that is never true but evaluates the expressions that may fail, or "" if none may fail."""
    computed = [each for each in expressions if may_fail(each)]
    return f"num_nonnulls({', '.join(computed)}) > {len(computed)}" if computed else ""


def _refuses_null(table: Table, column: Column) -> bool:
    """Return whether no row has NULL in a column. A NOT VALID constraint says nothing about old rows."""
    pending = {each.columns for each in table.constraints if each.kind == "n" and not each.validated}
    return column.not_null and (column.name,) not in pending


def _is_checked(table: Table, column: Column) -> bool:
    """Return whether a valid CHECK already excludes NULL from a column."""
    shown = {f"CHECK (({name} IS NOT NULL))" for name in (column.name, identifier(column.name))}
    return any(each.validated and each.definition in shown for each in table.constraints)


def _misfits(names: _Names, observation: Observation, old: Column, new: Column) -> str | None:
    """Return the condition of values that a column's new type refuses, as `type_changes.condition` does."""
    # The labels of an array are its elements'.
    was = names.before.enums.get(old.type.removesuffix(type_changes.ARRAY))
    labels = names.after.enums.get(new.type.removesuffix(type_changes.ARRAY))
    same_type = old.type == new.type and (was is None or {oid for oid, _ in was} & {oid for oid, _ in labels or ()})
    if same_type:
        return ""
    using = type_changes.using_of(
        (statement.sql for statement in observation.upgrade.statements),
        (names.was.name, names.now.name),
        (old.name, new.name),
    )
    known = [label for _, label in labels] if labels is not None else None
    return type_changes.condition(identifier(old.name), old.type, new.type, using, known)


def _of_domains(names: _Names) -> Iterator[Check]:
    """Yield the requirements of a changed domain for its columns, and of a domain for a new column."""
    table = names.was.name
    for old, new in difference.kept_columns(names.was, names.now):
        if old.type != new.type or names.inherits_column(new.name):
            continue
        for domain in _domains(names.after, new.type):
            was = names.before.others.get(domain)
            held = list(_of_domain(was)) if was is not None else []
            for name, condition in _of_domain(names.after.others[domain]) if was is not None else ():
                if (name, condition) not in held:
                    query = f"SELECT * FROM {table} WHERE {_refused_by_domain(condition, identifier(old.name))}"  # noqa: S608
                    yield Check("check", table, (old.name,), name, query, (table,))
    known = {column.number for column in names.was.columns}
    for new in names.now.columns:
        if new.number in known or names.inherits_column(new.name):
            continue
        for domain in _domains(names.after, new.type):
            for name, condition in _of_domain(names.after.others[domain]):
                value = f"({new.default or 'NULL'})"
                query = f"SELECT * FROM {table} WHERE {_refused_by_domain(condition, value)}"  # noqa: S608
                yield Check("check", table, (new.name,), name, query, (table,))


def _of_domain(text: str) -> Iterator[tuple[str | None, str | None]]:
    """Yield the name and the condition of each requirement of a domain. The condition of NOT NULL is None."""
    names_not_null = False
    for each in (part.strip() for part in split(text, ";")):
        found = _DOMAIN_CHECK.search(each) or _DOMAIN_NOT_NULL.search(each)
        if found is not None and not each.endswith("NOT VALID"):
            names_not_null |= "condition" not in found.groupdict()
            yield bare(found["name"]), found.groupdict().get("condition")
    base = _DOMAIN_BASE.search(text)
    if base is not None and base[0].endswith(" t") and not names_not_null:
        # Before PostgreSQL 17, NOT NULL of a domain is not a named constraint.
        yield None, None


def _domains(catalog: Catalog, type_: str) -> Iterator[str]:
    """Yield the catalog's names of a domain and of its base domains, or nothing for another type."""
    texts = {name: text for name, text in catalog.others.items() if name.startswith("type ") and text.startswith("d ")}
    domain: str | None = f"type {type_}"
    while domain in texts:
        yield domain
        # In the catalog's definition, the base type is before the flag of NOT NULL.
        found = _DOMAIN_BASE.search(texts.pop(domain))
        domain = next((each for each in texts if found and found["before"].endswith(each.removeprefix("type"))), None)


def _refused_by_domain(condition: str | None, column: str) -> str:
    """Return the condition of values that a domain's CHECK refuses. Without a CHECK, it is that of NOT NULL."""
    if condition is None:
        return f"{column} IS NULL"
    return f"NOT {_VALUE.sub(lambda found: column if found['value'] else found[0], condition)}"


def _of_partitions(names: _Names) -> Iterator[Check]:
    """Yield the requirements for the rows of a new partition, and for those in the default partition beside it."""
    table, condition = names.was.name, names.now.partition_rows
    if condition is None or condition == names.was.partition_rows:
        return
    known = difference.partitions(names.before)
    parents = difference.parents(names.after)
    made = {name for name, parent in parents.items() if parent == parents.get(names.now.name) and name not in known}
    is_default = names.now.name in difference.default_partitions(names.after)
    if (is_default and not made) or any(owner.partition_rows is not None for owner in names.owners()):
        return  # a partition was only detached, or the check of the partitioned table includes the rows
    source = names.source(condition) if "satisfies_hash_partition" not in condition else None
    query = f"SELECT * FROM {source} WHERE NOT ({condition})" if source is not None else None  # noqa: S608
    yield Check("check", table, (), None, query, (table,))


def _of_detached(names: _Names) -> Iterator[Check]:
    """Yield the requirement that no row refers to the rows of a detached partition."""
    if names.was.partition_rows is None or names.now.partition_rows is not None:
        return
    above, parents = names.was.name, difference.parents(names.before)
    owners = []
    while (above := parents.get(above, "")) != "":
        owners.append(above)
    for other in names.before.tables:
        for constraint in other.constraints:
            found = _REFERENCES.search(constraint.definition)
            if found is None or constraint.references not in owners or not constraint.validated:
                continue
            target = split(in_parentheses(constraint.definition[found.end() :])[0])
            pairs = zip(target, constraint.columns, strict=True)
            equal = " AND ".join(f"there.{their.strip()} = here.{identifier(mine)}" for their, mine in pairs)
            query = (
                f"SELECT here.* FROM {other.name} AS here"  # noqa: S608
                f" WHERE EXISTS (SELECT FROM {names.was.name} AS there WHERE {equal})"
            )
            yield Check(
                "foreign_key", other.name, constraint.columns, constraint.name, query, (other.name, names.was.name)
            )
