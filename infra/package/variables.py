"""Finds the environment variables that a backend's tree reads, and suggests the stage's ``environment`` for them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.package.import_graph import When
from lambda_migrate.invocation.suggestions import database_env, puts_password_into_url, to_paste

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from infra.package.import_graph import Reached
    from infra.package.imports import Files

_ENVIRONMENT = re.compile(r"environ|getenv")
_UPPER = re.compile(r"""(?<=["'])[A-Z][A-Z0-9_]+(?=["'])""")


@dataclass(frozen=True)
class Variables:
    """The environment variables that a tree reads.

    ``required`` have no default. ``templates`` are a DATABASE_ENV for them. ``whole`` are the addresses that replace
    the parts in ``templates`` if they are set.
    """

    templates: Mapping[str, str]
    required: tuple[str, ...]
    whole: Mapping[str, str]

    def lacking(self, environment: Mapping[str, str], url_variables: tuple[str, ...]) -> str | None:
        """Return a line with the variables that the stage should set, or None if it sets all."""
        templates = {} if "DATABASE_ENV" in environment else dict(self.templates)
        set_already = {*environment, *url_variables, *templates}
        templates = {name: text for name, text in templates.items() if name not in url_variables}
        others = [name for name in self.required if name not in set_already]
        if not templates and not others:
            return None
        names = ", ".join((*templates, *others))
        whole = {name: text for name, text in self.whole.items() if name not in set_already} if templates else {}
        instead = f"; if it makes no address of these, {to_paste(whole)}" if whole else ""
        return f"the backend reads {names}: set what the stage lacks, {to_paste(templates, others)}{instead}"


def find(files: Files, reached: Reached) -> Variables:
    """Return the variables that modules read when the tree is loaded."""
    texts = {path: files[path].read_text(encoding="utf-8", errors="replace") for path in reached.modules}
    parsed = {path: module for path, text in texts.items() if (module := _parsed(text))}
    classes = _Classes.of(parsed.values())
    read: dict[str, bool] = {}
    escapes = True
    for path, module in parsed.items():
        when = reached.modules[path]
        if when is When.IN_A_FUNCTION:
            continue
        escapes &= not puts_password_into_url(texts[path], module)
        for name, needed in _variables(module, classes):
            read[name] = read.get(name, False) or (needed and when is When.ALWAYS)
    every = database_env(read, escapes=escapes)
    templates = _without_made_urls(every, read)
    whole = {name: text for name, text in every.items() if name not in templates}
    required = tuple(name for name, needed in read.items() if needed and name not in templates)
    return Variables(templates, required, whole)


def _without_made_urls(templates: Mapping[str, str], needed: Mapping[str, bool]) -> dict[str, str]:
    """Return the templates, without those of complete addresses that the backend makes from the parts by default."""
    if not {"{host}", "{database}"} <= set(templates.values()):
        return dict(templates)
    return {name: text for name, text in templates.items() if needed[name] or not ("://" in text or text == "{url}")}


def names_in(text: str) -> set[str]:
    """Return the variables that a file may read. If it reads the environment, its words in upper case count, too."""
    module = _parsed(text)
    found = {name for name, _ in _variables(module, _Classes.of([module]))} if module else set()
    return found | set(_UPPER.findall(text)) if _ENVIRONMENT.search(text) else found


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


@dataclass(frozen=True)
class _Classes:
    """The classes of some modules that have fields, and the names of those that read them from the environment.

    The latter are those of pydantic's BaseSettings.
    """

    models: Mapping[str, ast.ClassDef]
    settings: AbstractSet[str]

    @classmethod
    def of(cls, modules: Iterable[ast.Module]) -> _Classes:
        classes = [node for module in modules for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
        # An Enum has no annotated field.
        models = {node.name: node for node in classes if any(isinstance(field, ast.AnnAssign) for field in node.body)}
        settings: set[str] = set()
        while True:
            bases = {node.name: {_name(base).rpartition(".")[2] for base in node.bases} for node in classes}
            more = {
                name
                for name, theirs in bases.items()
                if theirs & settings or any("Settings" in base for base in theirs)
            }
            if more <= settings:
                return cls(models, settings)
            settings |= more


def _variables(module: ast.Module, classes: _Classes) -> Iterator[tuple[str, bool]]:
    """Yield the variables that a module reads, each with whether the module fails without it."""
    for node in ast.walk(module):
        if isinstance(node, ast.Subscript) and _name(node.value).endswith("environ"):
            if isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Constant):
                yield str(node.slice.value), True
        elif isinstance(node, ast.Call):
            function = _name(node.func)
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and _reads(function):
                yield first.value, first.value.isupper() and not _has_fallback(node)
        elif isinstance(node, ast.ClassDef) and node.name in classes.settings:
            yield from _fields(node, _option(node, "env_prefix"), _option(node, "env_nested_delimiter"), classes)


def _reads(function: str) -> bool:
    return _is_getenv(function) or function in {"config", "env"} or function.startswith("env.")


def _is_getenv(function: str) -> bool:
    return function.endswith(("environ.get", "getenv"))


def _has_fallback(call: ast.Call) -> bool:
    """Return whether a call has a default. Without one, calls of starlette and decouple fail for an unset variable."""
    name = _name(call.func)
    return (
        _is_getenv(name)
        or name.endswith(".get")
        or len(call.args) > 1
        or any(one.arg == "default" for one in call.keywords)
    )


def _fields(node: ast.ClassDef, prefix: str, delimiter: str, classes: _Classes) -> Iterator[tuple[str, bool]]:
    """Yield the variables of a settings class. With a ``delimiter``, a field of a class has one for each subfield.

    Without a delimiter, the variable of such a field is a JSON object, which is rarely set if the field has a default.
    """
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
        model = classes.models.get(annotation)
        if model is None or (needed and not delimiter):
            yield variable, needed
        elif delimiter and annotation not in classes.settings and model is not node:
            others = {name: each for name, each in classes.models.items() if each is not model}  # against recursion
            below = _fields(model, f"{variable}{delimiter}", delimiter, replace(classes, models=others))
            yield from ((inner, needed and inner_needed) for inner, inner_needed in below)


def _alias(keyword: ast.keyword) -> str | None:
    if keyword.arg not in {"alias", "validation_alias", "env"}:
        return None
    value = keyword.value
    # Of several aliases, pydantic uses the first that is set.
    choices = value.args if isinstance(value, ast.Call) and _name(value.func).endswith("AliasChoices") else [value]
    return next((str(one.value) for one in choices if isinstance(one, ast.Constant)), None)


def _has_default(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    required = isinstance(first, ast.Constant) and first.value is ...
    return (first is not None and not required) or any(
        one.arg in {"default", "default_factory"} for one in call.keywords
    )


def _option(node: ast.ClassDef, option: str) -> str:
    """Return an option of a settings class, or an empty text if it is not set."""
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
