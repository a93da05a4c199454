"""Reads an Alembic revision file's source without running it, for the builder and the reviewer."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Alembic's own rule for which files of a version directory are revisions.
_NAME = re.compile(r"(?!\.#|__init__).*\.py")
_REQUIRED = ("revision", "down_revision")
_VARIABLES = (*_REQUIRED, "depends_on", "branch_labels")


class ProblemKind(Enum):
    """Why a file, or one variable in it, cannot be read."""

    SYNTAX = auto()  # Python cannot parse the file
    MISSING = auto()  # a required variable is not assigned
    NOT_LITERAL = auto()  # the value is known only after running the file
    NOT_ONE_ID = auto()  # `revision` is not exactly one string


@dataclass(frozen=True)
class Problem:
    """One reason why a file cannot be read as a revision.

    ``variable`` and ``line`` are its place, if it is in one place. ``error`` is Python's own, for `ProblemKind.SYNTAX`.
    """

    kind: ProblemKind
    variable: str = ""
    line: int | None = None
    error: SyntaxError | ValueError | None = None


@dataclass(frozen=True)
class RevisionFile:
    """The values that Alembic reads from one revision file.

    ``depends_on`` may hold ids and branch labels. ``problems`` lists the optional variables that could not be read, in
    the file's order; their values are empty. ``module`` is the parsed source.
    """

    id: str
    down_revisions: tuple[str, ...]
    depends_on: tuple[str, ...]
    branch_labels: tuple[str, ...]
    docstring: str
    problems: tuple[Problem, ...]
    module: ast.Module = field(compare=False, repr=False)


def is_revision_file(name: str) -> bool:
    """Return whether Alembic reads a file of this name in a version directory as a revision."""
    return _NAME.fullmatch(name) is not None


def read_revision_file(source: str | bytes, filename: str = "<unknown>") -> RevisionFile | Problem:
    """Return the content of a revision file, or the first problem that hides its id or its parents.

    Args:
        source: the file's text or bytes. Python decodes bytes by the file's own encoding declaration.
        filename: the name that a `SyntaxError` contains.
    """
    try:
        module = ast.parse(source, filename)
    except (SyntaxError, ValueError) as error:  # before Python 3.12 a null byte is a ValueError
        return Problem(ProblemKind.SYNTAX, line=getattr(error, "lineno", None), error=error)
    assigned = {name: value for name, value in assignments(module) if name in _VARIABLES}
    for name in _REQUIRED:
        if name not in assigned:
            return Problem(ProblemKind.MISSING, name)
    values: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for name, expression in assigned.items():
        strings = _strings(expression)
        if strings is None:
            problems.append(Problem(ProblemKind.NOT_LITERAL, name, expression.lineno))
        else:
            values[name] = strings
    if "revision" in values and len(values["revision"]) != 1:
        problems.append(Problem(ProblemKind.NOT_ONE_ID, "revision", assigned["revision"].lineno))
    if any(problem.variable in _REQUIRED for problem in problems):
        return problems[0]
    return RevisionFile(
        id=values["revision"][0],
        down_revisions=values["down_revision"],
        depends_on=values.get("depends_on", ()),
        branch_labels=values.get("branch_labels", ()),
        docstring=ast.get_docstring(module) or "",
        problems=tuple(problems),
        module=module,
    )


def assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield each name that a module assigns at its top level, plain or annotated, with its value."""
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target.id, statement.value


def _strings(expression: ast.expr) -> tuple[str, ...] | None:
    """Return the strings in a value that Alembic takes as None, one string or several; None if it is no literal."""
    try:
        value = ast.literal_eval(expression)
    except (ValueError, TypeError):
        return None
    several = (value,) if isinstance(value, str) else () if value is None else value
    if isinstance(several, (tuple, list, set)) and all(isinstance(text, str) for text in several):
        return tuple(several)
    return None
