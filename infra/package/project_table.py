"""Reads the dependencies in the [project] or [tool.poetry] table of a pyproject.toml, for a project without a lock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from infra.package.errors import PackageError
from infra.package.uv_tool import read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PYPROJECT = "pyproject.toml"
UV_LOCK = "uv.lock"
# Settings with which uv locks other versions than the project's table requires.
_CHANGES_VERSIONS = frozenset({"constraint-dependencies", "override-dependencies", "exclude-dependencies"})
# The name and the extras of a requirement. By its own name, such as shop[db], an extra of shop includes another.
_REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*(?:\[([^]]*)\])?")

# A dependency of Poetry with another key, such as git or source, has no requirement of the same meaning.
_OF_POETRY = frozenset({"version", "extras", "markers", "optional"})


def is_project(folder: Path) -> bool:
    """Return whether a folder contains a project of any tool."""
    content = _read(folder / PYPROJECT)
    return "project" in content or "poetry" in _table(content, "tool") or (folder / "setup.py").is_file()


def name_of(folder: Path) -> str:
    """Return the normalised name of a folder's project, or an empty text if its table has none."""
    return canonicalize_name(str(_table(_read(folder / PYPROJECT), "project").get("name", "")))


def lists_dependencies(pyproject: Path) -> bool:
    """Return whether a project's table has all facts to resolve its dependencies without a lock.

    Raises `PackageError` if the table cannot be read.
    """
    content = _read(pyproject)
    project = _project(content, pyproject)
    if "project" not in content or "dependencies" in project.get("dynamic", ()):
        return False
    uv, poetry = (_table(content, "tool", tool) for tool in ("uv", "poetry"))
    if not _CHANGES_VERSIONS.isdisjoint(uv) or not {"dependencies", "source"}.isdisjoint(poetry):
        return False
    return not _of_sources(pyproject, project.get("dependencies", ()))


def dependencies_of(pyproject: Path, extras: Sequence[str] = ()) -> list[str]:
    """Return the dependencies in a project's own table. Its extras may include each other.

    Raises `PackageError` for an unknown extra, or for one whose distributions only uv finds.
    """
    project = _project(_read(pyproject), pyproject)
    name = canonicalize_name(str(project.get("name", "")))
    optional = {canonicalize_name(extra): lines for extra, lines in project.get("optional-dependencies", {}).items()}
    found: list[str] = []

    def add(lines: Sequence[str]) -> None:
        for line in lines:
            own = _REQUIREMENT.match(line)
            if own and own[2] and canonicalize_name(own[1]) == name:
                wanted.extend(extra.strip() for extra in own[2].split(","))
            else:
                found.append(line)

    wanted = list(extras)
    add(project.get("dependencies", ()))
    added: set[str] = set()
    for extra in wanted:  # `add` appends to it
        key = canonicalize_name(extra)
        if key not in optional:
            raise PackageError(f"extras names {extra}, which {pyproject.name} does not have; correct the name")
        if key not in added:
            added.add(key)
            add(optional[key])
    if extras and (sources := _of_sources(pyproject, found)):
        raise PackageError(f"{pyproject.name} takes {sources[0]} from tool.uv.sources; write a lock with: uv lock")
    return found


def extras_of(folder: Path) -> dict[str, list[str]]:
    """Return the extras of a folder's project, and the names of the distributions that each adds."""
    pyproject = folder / PYPROJECT
    always = set(names_in(dependencies_of(pyproject)))
    extras = _project(_read(pyproject), pyproject).get("optional-dependencies", {})
    with_each = {extra: names_in(dependencies_of(pyproject, (extra,))) for extra in extras}
    return {extra: [name for name in names if name not in always] for extra, names in with_each.items()}


def names_in(dependencies: Sequence[str]) -> list[str]:
    """Return the names of a project's dependencies in their normal form."""
    return [canonicalize_name(found[1]) for found in map(_REQUIREMENT.match, dependencies) if found]


def python_of(pyproject: Path) -> str:
    """Return the Python versions of a project as a specifier, with ``||`` between alternatives, or empty for any."""
    return str(_table(_read(pyproject), "project").get("requires-python", ""))


def pythons_of_poetry(constraint: str) -> str:
    """Return Poetry's constraint of Python as a standard specifier, with Poetry's ``||`` between alternatives."""
    return "||".join(_of_poetry(part) for part in re.split(r"\s*\|\|?\s*", constraint))


def folders_above(folder: Path) -> Iterator[Path]:
    """Yield the folders above a backend up to the root of its repository."""
    above: list[Path] = []
    for one in () if (folder / ".git").exists() else folder.parents:
        above.append(one)
        if (one / ".git").exists():
            yield from above
            return
    if (folder / PYPROJECT).is_file():  # outside of a repository, the folder above may be a workspace with the lock
        yield from (one for one in above if (one / UV_LOCK).is_file())


def _read(pyproject: Path) -> Mapping[str, Any]:
    content = read_toml(pyproject) if pyproject.is_file() else {}
    poetry, project = _table(content, "tool", "poetry"), _table(content, "project")
    if not {"dependencies", "optional-dependencies"}.isdisjoint(project) or "dependencies" not in poetry:
        return content
    try:
        theirs = {"name": poetry.get("name", ""), **project, **_table_of_poetry(poetry)}
    except (AttributeError, TypeError, InvalidRequirement):
        return content  # only Poetry itself can resolve it
    rest = {key: value for key, value in poetry.items() if key != "dependencies"}
    return {**content, "project": {**theirs, "dynamic": []}, "tool": {**content["tool"], "poetry": rest}}


def _table_of_poetry(poetry: Mapping[str, Any]) -> dict[str, Any]:
    """Return Poetry's dependencies in the form of a [project] table.

    Raises `TypeError`, `AttributeError` or `InvalidRequirement` if a dependency cannot be written as a requirement.
    """
    always, optional = list[str](), dict[str, list[str]]()
    for name, how in poetry["dependencies"].items():
        for one in how if isinstance(how, list) else [how]:
            entry = one if isinstance(one, dict) else {"version": one}
            if name == "python":
                continue
            if not entry.keys() <= _OF_POETRY or "version" not in entry:
                raise TypeError(name)
            extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
            marker = f" ; {entry['markers']}" if entry.get("markers") else ""
            line = str(Requirement(f"{name}{extras}{_of_poetry(entry['version'])}{marker}"))
            (optional.setdefault(canonicalize_name(name), []) if entry.get("optional") else always).append(line)
    extras_of = {
        extra: [line for name in names for line in optional.get(canonicalize_name(name), ())]
        for extra, names in _table(poetry, "extras").items()
    }
    python = pythons_of_poetry(poetry["dependencies"].get("python", "*"))
    return {"dependencies": always, "optional-dependencies": extras_of, "requires-python": python}


def _of_poetry(constraint: str) -> str:
    """Return a constraint in Poetry's syntax as a specifier of the packaging standards."""
    return ",".join(filter(None, map(_specifier, re.split(r"\s*,\s*|(?<=[\w*])\s+(?=[<>=!^~])", constraint.strip()))))


def _specifier(part: str) -> str:
    operator, version = re.fullmatch(r"([<>=!~^]*)\s*(.*)", part).groups()  # type: ignore[union-attr]
    release = [int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number] or [3]  # type: ignore[index]
    if operator in {"^", "~"}:
        # A caret keeps the first number that is not 0, and a tilde the first two.
        first = next((at for at, number in enumerate(release) if number), len(release) - 1)
        last = first if operator == "^" else min(1, len(release) - 1)
        upper = [*release[:last], release[last] + 1]
        return f">={version},<{'.'.join(map(str, upper))}"
    if operator in {"", "="}:
        return "" if version in {"", "*"} else f"=={version}"
    return f"{operator}{version}"


def _table(content: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return a table of a TOML file, or an empty one if it is missing or has another type."""
    found: Any = content
    for key in keys:
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _project(content: Mapping[str, Any], pyproject: Path) -> Mapping[str, Any]:
    """Return the [project] table. Raises `PackageError` if its dependencies are no lists of texts."""
    project = content.get("project", {})
    lists: list[Any] = []
    if isinstance(project, dict):
        optional = project.get("optional-dependencies", {})
        lists = [project.get("dependencies", []), *(optional.values() if isinstance(optional, dict) else [optional])]
    if not isinstance(project, dict) or not all(
        isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in lists
    ):
        raise PackageError(f"{pyproject} has a [project] table that cannot be read: dependencies are lists of strings")
    return project


def _of_sources(pyproject: Path, lines: Sequence[str]) -> list[str]:
    """Return the dependencies that uv takes from a git repository or a folder.

    An index may have another distribution of the same name.

    The root of a workspace may have sources for its members.
    """
    folders = (pyproject.parent, *folders_above(pyproject.parent))
    tables = [_table(_read(folder / PYPROJECT), "tool", "uv", "sources") for folder in folders]
    sources = {canonicalize_name(name) for table in tables for name in table}
    return [name for name in names_in(lines) if name in sources]
