"""Finds the environment variables that a backend's tree reads, and suggests the stage's ``environment`` for them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.package.import_graph import When
from lambda_migrate.invocation.suggestions import database_env, to_paste

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from infra.package.import_graph import Reached
    from infra.package.imports import Files

# An f-string that puts a password into an address as it is.
_ADDRESS = re.compile(r"""f["'][^"'\n]*://[^"'\n]*\{[^}"'\n]*(?:password|passwd|pass|pwd)[^}"'\n]*\}""", re.IGNORECASE)
_ENVIRONMENT = re.compile(r"environ|getenv")
_UPPER = re.compile(r"""(?<=["'])[A-Z][A-Z0-9_]+(?=["'])""")
_ESCAPES = re.compile(r"\bquote(?:_plus)?\(")


@dataclass(frozen=True)
class Variables:
    """The environment variables that a tree reads.

    ``required`` have no default. ``templates`` are a DATABASE_ENV for them.
    """

    templates: Mapping[str, str]
    required: tuple[str, ...]

    def lacking(self, environment: Mapping[str, str], url_variables: tuple[str, ...]) -> str | None:
        """Return a line with the variables that the stage should set, or None if it sets all."""
        templates = {} if "DATABASE_ENV" in environment else dict(self.templates)
        set_already = {*environment, *url_variables, *templates}
        templates = {name: text for name, text in templates.items() if name not in url_variables}
        others = [name for name in self.required if name not in set_already]
        if not templates and not others:
            return None
        names = ", ".join((*templates, *others))
        return f"the backend reads {names}: set what the stage lacks, {to_paste(templates, others)}"


def find(files: Files, reached: Reached) -> Variables:
    """Return the variables that are read by modules which the tree loads at once."""
    read: dict[str, bool] = {}
    escapes = True
    for path, when in reached.modules.items():
        if when is When.IN_A_FUNCTION:
            continue
        text = files[path].read_text(encoding="utf-8", errors="replace")
        escapes &= not _ADDRESS.search(text) or _ESCAPES.search(text) is not None
        for name, needed in _variables(text):
            read[name] = read.get(name, False) or (needed and when is When.ALWAYS)
    templates = database_env(read, escapes=escapes)
    required = tuple(name for name, needed in read.items() if needed and name not in templates)
    return Variables(templates, required)


def names_in(text: str) -> set[str]:
    """Return the variables that a file may read: also words that it has in upper case, if it reads the environment."""
    found = {name for name, _ in _variables(text)}
    return found | set(_UPPER.findall(text)) if _ENVIRONMENT.search(text) else found


def _variables(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the variables that a module reads, each with whether it fails without."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    settings = _settings_classes(module)
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    # An Enum has no annotated field.
    models = {node.name: node for node in classes if any(isinstance(field, ast.AnnAssign) for field in node.body)}
    for node in ast.walk(module):
        if isinstance(node, ast.Subscript) and _name(node.value).endswith("environ"):
            if isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Constant):
                yield str(node.slice.value), True
        elif isinstance(node, ast.Call):
            function = _name(node.func)
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and _reads(function):
                yield first.value, False
        elif isinstance(node, ast.ClassDef) and node.name in settings:
            delimiter = _option(node, "env_nested_delimiter")
            nested = {name: model for name, model in models.items() if name not in settings} if delimiter else {}
            yield from _fields(node, _option(node, "env_prefix"), delimiter, nested)


def _reads(function: str) -> bool:
    return function.endswith(("environ.get", "getenv")) or function in {"config", "env", "env.str", "env.url"}


def _settings_classes(module: ast.Module) -> set[str]:
    """Return the classes of a module that read their fields from the environment, as pydantic's BaseSettings."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            bases = {_name(base).rpartition(".")[2] for base in node.bases}
            if bases & found or any("Settings" in base for base in bases):
                found.add(node.name)
    return found


def _fields(
    node: ast.ClassDef, prefix: str, delimiter: str, nested: Mapping[str, ast.ClassDef]
) -> Iterator[tuple[str, bool]]:
    """Yield the variables of a class of settings. Those of a field that is one of ``nested`` are its own fields."""
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        annotation = ast.unparse(field.annotation)
        name = field.target.id
        if name == "model_config" or name.startswith("_") or "ClassVar" in annotation:
            continue
        value = field.value
        call = value if isinstance(value, ast.Call) and _name(value.func).endswith("Field") else None
        alias = next(filter(None, map(_alias, call.keywords)), None) if call else None
        variable = alias or f"{prefix}{name}".upper()
        needed = value is None or (call is not None and not _has_default(call))
        if model := nested.get(annotation):
            others = {name: each for name, each in nested.items() if each is not model}
            below = _fields(model, f"{variable}{delimiter}", delimiter, others)
            yield from ((inner, needed and inner_needed) for inner, inner_needed in below)
        else:
            yield variable, needed


def _alias(keyword: ast.keyword) -> str | None:
    if keyword.arg not in {"alias", "validation_alias", "env"}:
        return None
    value = keyword.value
    # Of several, pydantic takes the first that is set.
    choices = value.args if isinstance(value, ast.Call) and _name(value.func).endswith("AliasChoices") else [value]
    return next((str(one.value) for one in choices if isinstance(one, ast.Constant)), None)


def _has_default(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    required = isinstance(first, ast.Constant) and first.value is ...
    return (first is not None and not required) or any(
        one.arg in {"default", "default_factory"} for one in call.keywords
    )


def _option(node: ast.ClassDef, option: str) -> str:
    """Return a text in the configuration of a class of settings, empty if it has none."""
    for part in ast.walk(node):
        if isinstance(part, ast.keyword) and part.arg == option and isinstance(part.value, ast.Constant):
            return str(part.value.value)
        assigned = part.targets if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant) else ()
        if any(_name(target) == option for target in assigned):
            return str(part.value.value)  # type: ignore[attr-defined]
    return ""


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return str(getattr(node, "id", ""))
