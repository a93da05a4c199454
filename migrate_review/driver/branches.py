"""Finds the parts of a revision's ``upgrade()`` that did not run. The review reports them as not measured.

A part is the body of a condition or a loop, or the statements after one that may return. These parts do not count:

- a part that does not use the database, that only adds rows, or that is for another dialect or for SQL files;
- a part whose statements also ran elsewhere in the revision, as the last batch does after a loop;
- the statements after a ``break`` in a loop: the reviewer's tables have fewer rows than one batch.

This module imports only the standard library, like the whole driver.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

_MARK = "__review_ran__"

# Methods that use a database, on whatever object they are called.
_WORKING = frozenset(
    "execute executemany exec_driver_sql scalar scalars copy_expert copy_from create_all drop_all run_sync"  # noqa: SIM905
    " bulk_save_objects bulk_insert_mappings bulk_update_mappings bulk_insert".split()
)
# Names of objects with access to the database. Their methods, and functions that get one of them, may do anything.
_DATABASE = frozenset({"op", "bind", "conn", "connection", "session", "cursor", "engine"})
_READING = frozenset(
    "get_bind get_context f inspect has_table has_index get_columns get_indexes get_table_names get_foreign_keys"  # noqa: SIM905
    " get_unique_constraints get_check_constraints get_enums from_engine print len isinstance"
    " begin begin_nested commit rollback flush close expire_all expunge_all fetchall fetchone first".split()
)
# Calls that only add rows. A part with nothing else, such as an idempotent seed, need not be measured.
_ADDING = frozenset("bulk_insert bulk_insert_mappings bulk_save_objects add add_all".split())  # noqa: SIM905
_ADDS = re.compile(r"\binsert\(|\bINSERT\s+INTO\b", re.IGNORECASE)
_ADDS_AND_MORE = re.compile(r"\b(SELECT|UPDATE|DELETE|ALTER|CREATE|DROP|TRUNCATE|from_select)\b", re.IGNORECASE)
# Words in conditions for SQL files and for other databases. The review covers neither.
_ELSEWHERE = re.compile(r"dialect|as_sql|is_offline_mode|TYPE_CHECKING|postgres|sqlite|mysql|mariadb|mssql|oracle")
_LONGEST = 60


@dataclass(frozen=True)
class _Part:
    """Statements that run together. ``within`` are the numbers of the parts that always run before it.

    ``calls`` are the calls that use the database. ``counts`` is False if the part need not be measured.
    """

    text: str
    calls: frozenset[str]
    counts: bool
    within: tuple[int, ...]


@dataclass
class Branches:
    """The parts of one revision's upgrade. ``ran`` are the numbers of those that ran.

    ``source`` is the source text of ``upgrade()``.
    """

    parts: list[_Part] = field(default_factory=list)
    ran: set[int] = field(default_factory=set)
    source: str = ""

    def left_out(self) -> list[str]:
        """Return the lines of each part that did not run, with the reason."""
        missed = [number for number in range(len(self.parts)) if number not in self.ran]
        inside = {number: set[str]() for number in self.ran}
        for number in missed:
            for outer in self.ran.intersection(self.parts[number].within):
                inside[outer] |= self.parts[number].calls
        ran = {call for number in self.ran for call in self.parts[number].calls - inside[number]}
        return [
            part.text
            for part in (self.parts[number] for number in missed)
            if part.counts and not part.calls <= ran and self.ran.issuperset(part.within)
        ]


def load(path: Path) -> tuple[ModuleType, Branches]:
    """Import a revision's file again, as Alembic does, with a mark in each part of ``upgrade()``."""
    spec = spec_from_file_location(re.sub(r"\W", "_", path.name), path)
    assert spec is not None  # noqa: S101 - it is a file
    module = module_from_spec(spec)
    tree = ast.parse(path.read_bytes(), str(path))
    branches = Branches(source=_of_upgrade(tree, path))
    _Marking(tree, branches).mark()
    module.__dict__[_MARK] = branches.ran.add
    exec(compile(tree, str(path), "exec"), module.__dict__)  # noqa: S102 - as an import does
    return module, branches


def _of_upgrade(tree: ast.Module, path: Path) -> str:
    text = path.read_bytes().decode(errors="replace")
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade")
    return next((ast.get_source_segment(text, node) or "" for node in found), "")


class _Marking:
    """Adds the marks to the functions of a module. Parts of a function that is not called do not count."""

    def __init__(self, tree: ast.Module, branches: Branches) -> None:
        self.parts = branches.parts
        self.functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self.working: set[str] = set()
        for _ in self.functions:  # a function uses the database, too, if it calls one that does
            self.working |= {name for name, node in self.functions.items() if self._works(node.body)}

    def mark(self) -> None:
        for function in self.functions.values():
            function.body = self._marked(function.body, (), "", counts=False)

    def _marked(self, body: list[ast.stmt], within: tuple[int, ...], why: str, *, counts: bool) -> list[ast.stmt]:
        """Return a body with a mark at its beginning, and after each statement that may leave it.

        ``counts`` is False for a body that always runs or need not be measured.
        """
        marked: list[ast.stmt] = []
        start = 0
        for position, statement in enumerate(body):
            if position < len(body) - 1 and not _may_leave(statement):
                continue
            part = body[start : position + 1]
            number = self._add(f"{_lines(part)} ({why})", part, within, counts=counts)
            call = ast.Expr(_call(number))
            marked += [ast.fix_missing_locations(ast.copy_location(call, part[0])), *part]
            within = (*within, number)
            for each in part:
                self._mark_inside(each, within)
            start, why = position + 1, f"line {statement.lineno} ended it"
            counts = not _is_elsewhere(statement) and not _only_breaks(statement)
        return marked

    def _add(self, text: str, nodes: Sequence[ast.AST], within: tuple[int, ...], *, counts: bool) -> int:
        calls = [node for node in _walked(nodes) if isinstance(node, ast.Call) and self._is_work(node)]
        counts = counts and any(not _only_adds(call) for call in calls)
        self.parts.append(_Part(text, frozenset(map(ast.unparse, calls)), counts, within))
        return len(self.parts) - 1

    def _mark_inside(self, statement: ast.stmt, within: tuple[int, ...]) -> None:
        line = f"line {statement.lineno}"
        if isinstance(statement, ast.If):
            counts, condition = not _is_elsewhere(statement), _short(statement.test)
            statement.body = self._marked(statement.body, within, f"{line}: if {condition}", counts=counts)
            statement.orelse = self._marked(statement.orelse, within, f"{line}: not {condition}", counts=counts)
        elif isinstance(statement, ast.For):
            loop = f"{line}: for ... in {_short(statement.iter)}"
            statement.body = self._marked(statement.body, within, loop, counts=True)
            statement.orelse = self._marked(statement.orelse, within, line, counts=False)
        elif isinstance(statement, ast.While):
            loop = f"{line}: while {_short(statement.test)}"
            statement.body = self._marked(statement.body, within, loop, counts=True)
            statement.orelse = self._marked(statement.orelse, within, line, counts=False)
        elif isinstance(statement, ast.Match):
            for case in statement.cases:
                why = f"line {case.pattern.lineno}: case {_short(case.pattern)}"
                case.body = self._marked(case.body, within, why, counts=True)
        elif isinstance(statement, (ast.With, ast.FunctionDef)):
            statement.body = self._marked(statement.body, within, line, counts=False)
        elif isinstance(statement, ast.Try):
            for name in ("body", "orelse", "finalbody"):
                setattr(statement, name, self._marked(getattr(statement, name), within, line, counts=False))
        elif not isinstance(statement, ast.ClassDef):
            self._mark_expressions(statement, within)

    def _mark_expressions(self, statement: ast.stmt, within: tuple[int, ...]) -> None:
        """Mark the expressions that may not be evaluated: b in ``a and b``, ``b if a else c``, ``[b for c in a]``."""

        def marked(node: ast.expr) -> ast.expr:
            if not self._works([node]):
                return node
            number = self._add(f"{_short(node)} in line {node.lineno}", [node], within, counts=True)
            return ast.fix_missing_locations(ast.copy_location(ast.BoolOp(ast.Or(), [_call(number), node]), node))

        for node in [*ast.walk(statement)]:
            if isinstance(node, ast.BoolOp):
                node.values[1:] = [marked(each) for each in node.values[1:]]
            elif isinstance(node, ast.IfExp) and not _ELSEWHERE.search(ast.unparse(node.test)):
                node.body, node.orelse = marked(node.body), marked(node.orelse)
            elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
                node.elt = marked(node.elt)

    def _works(self, parts: Sequence[ast.AST]) -> bool:
        return any(isinstance(node, ast.Call) and self._is_work(node) for node in _walked(parts))

    def _is_work(self, call: ast.Call) -> bool:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in _READING:
            return False
        if isinstance(call.func, ast.Attribute) and (name in _WORKING or _names(call.func.value) & _DATABASE):
            return True
        if name in self.functions:
            return name in self.working
        return any(_names(each) & _DATABASE for each in call.args)


def _walked(parts: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for each in parts:
        yield from ast.walk(each)


def _only_adds(call: ast.Call) -> bool:
    """Return whether a call adds rows and does nothing else."""
    text = ast.unparse(call)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return name in _ADDING or (_ADDS.search(text) is not None and _ADDS_AND_MORE.search(text) is None)


def _call(number: int) -> ast.Call:
    return ast.Call(ast.Name(_MARK, ast.Load()), [ast.Constant(number)], [])


def _names(node: ast.AST) -> set[str]:
    """Return the names in an expression such as ``db.session``, without those in calls."""
    if isinstance(node, ast.Attribute):
        return {node.attr} | _names(node.value)
    return {node.id} if isinstance(node, ast.Name) else set()


def _may_leave(statement: ast.stmt) -> bool:
    """Return whether the statements after a compound statement may not run."""
    if isinstance(statement, (ast.Return, ast.Break, ast.Continue, ast.FunctionDef, ast.ClassDef)):
        return False
    # A break in a loop leaves that loop only.
    in_loop = isinstance(statement, (ast.For, ast.While))
    leaves = (ast.Return,) if in_loop else (ast.Return, ast.Break, ast.Continue)
    return any(isinstance(node, leaves) for node in ast.walk(statement))


def _only_breaks(statement: ast.stmt) -> bool:
    """Return whether a statement can leave its loop, but neither return from the function nor continue the loop."""
    nodes = [*ast.walk(statement)]
    leaves = any(isinstance(node, (ast.Return, ast.Continue)) for node in nodes)
    return not leaves and any(isinstance(node, ast.Break) for node in nodes)


def _is_elsewhere(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and _ELSEWHERE.search(ast.unparse(statement.test)) is not None


def _lines(part: Sequence[ast.stmt]) -> str:
    first, last = part[0].lineno, part[-1].end_lineno
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
