"""Finds the indexes that a backend's distributions come from: by the settings of uv, of pip, and of the lock's tool."""

from __future__ import annotations

import json
import os
import re
from configparser import ConfigParser
from configparser import Error as IniError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from infra.package.uv_tool import Index, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The settings about indexes. Other settings, such as overrides, are already part of the lock, and uv would apply them
# again.
_OF_INDEXES = (
    "allow-insecure-host", "extra-index-url", "find-links", "index", "index-strategy", "index-url", "keyring-provider",
    "native-tls", "no-index",
)  # fmt: skip


def index_of(lock: Path, folder: Path, options: tuple[str, ...] = ()) -> Index:
    """Return the indexes of a lock: by the settings of uv, or else of pip, and by those of the lock's own tool.

    uv reads its own variables, which take precedence.
    """
    settings: dict[str, Any] = {}
    for base, found in (*_of_machine(), *_of_project(folder)):
        for name in _OF_INDEXES:
            if name in found:
                settings[name] = _usable(name, found[name], base)
    settings = settings or _of_pip()
    more = [url for url in _of_tool(lock) if not _PYPI.fullmatch(url)]
    if more:
        settings["extra-index-url"] = list(dict.fromkeys([*settings.get("extra-index-url", ()), *more]))
    # TOML takes a table's keys after all others, so the list of tables is last.
    tables = settings.pop("index", [])
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for table in tables:
        lines += ["[[index]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return Index("\n".join(lines), options)


def _of_machine() -> Iterator[tuple[Path, Mapping[str, Any]]]:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    named = os.environ.get("UV_CONFIG_FILE")
    for path in (Path("/etc/uv/uv.toml"), home / "uv" / "uv.toml", *([Path(named)] if named else [])):
        if path.is_file():
            yield path.parent, read_toml(path)


def _of_project(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the settings of the nearest project: uv.toml, or else a pyproject.toml that has a [tool.uv]."""
    for each in (folder, *folder.parents):
        if (each / "uv.toml").is_file():
            yield each, read_toml(each / "uv.toml")
            return
        if (each / "pyproject.toml").is_file():
            found = read_toml(each / "pyproject.toml").get("tool", {}).get("uv")
            if found is not None:
                yield each, found
                return


def _usable(name: str, value: Any, base: Path) -> Any:  # noqa: ANN401 - TOML
    """Return a setting in a form that is valid in another folder."""
    if name == "index":
        # An index for some distributions only is searched for all of them here. Hashes exclude other distributions.
        kept = [{key: one for key, one in table.items() if key in {"name", "url", "default"}} for table in value]
        return [{**table, "url": _absolute(table["url"], base)} for table in kept if "url" in table]
    if name in {"find-links", "extra-index-url"}:
        return [_absolute(one, base) for one in ([value] if isinstance(value, str) else value)]
    return _absolute(value, base) if name == "index-url" else value


def _absolute(place: str, base: Path) -> str:
    return place if "://" in place or Path(place).is_absolute() else str(base / place)


# pip's settings and uv's names for them. White space separates several values.
_PIP = {
    "index-url": "index-url",
    "extra-index-url": "extra-index-url",
    "find-links": "find-links",
    "trusted-host": "allow-insecure-host",
    "no-index": "no-index",
}
# uv's default index. It is not passed to uv, so that a setting of uv can replace it with a mirror.
_PYPI = re.compile(r"https://pypi\.(python\.)?org/simple/?")


def _of_pip() -> dict[str, Any]:
    """Return pip's settings as settings of uv, from its configuration files and its variables. The variables win."""
    found: dict[str, str] = {}
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [Path("/etc/pip.conf"), Path.home() / ".pip" / "pip.conf", home / "pip" / "pip.conf"]
    named = os.environ.get("PIP_CONFIG_FILE")
    for file in [*files, *([Path(named)] if named else [])]:
        found |= _of_pip_file(file)
    variables = {name: os.environ.get(f"PIP_{name.upper().replace('-', '_')}") for name in _PIP}
    found |= {name: value for name, value in variables.items() if value}
    settings: dict[str, Any] = {}
    for name, value in found.items():
        # A folder of this machine has only wheels for this machine.
        words = [word for word in value.split() if not word.startswith(("/", "file:"))]
        if name == "no-index":
            settings[name] = value.lower() in {"1", "true", "yes", "on"}
        elif words:
            settings[_PIP[name]] = words[0] if name == "index-url" else words
    if "extra-index-url" in settings:
        settings["index-strategy"] = "unsafe-best-match"  # as pip does
    return settings


def _of_pip_file(file: Path) -> dict[str, str]:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(file, encoding="utf-8")
    except (OSError, IniError, UnicodeDecodeError):  # pip itself reports the error
        return {}
    sections = [parser[section] for section in ("global", "install") if parser.has_section(section)]
    return {name: section[name] for section in sections for name in _PIP if name in section}


def _of_tool(lock: Path) -> Iterator[str]:
    """Yield the indexes that Poetry, PDM and Pipenv write into a lock or beside it, with their logins."""
    pyproject = lock.with_name("pyproject.toml")
    tools = read_toml(pyproject).get("tool", {}) if pyproject.is_file() else {}
    if lock.name == "poetry.lock":
        for source in tools.get("poetry", {}).get("source", ()):
            if url := source.get("url"):
                yield _with_login(url, source.get("name", ""))
    elif lock.name == "pdm.lock":
        for source in tools.get("pdm", {}).get("source", ()):
            if url := source.get("url"):
                yield os.path.expandvars(url)
    elif lock.name == "Pipfile.lock":
        with suppress(ValueError):
            for source in json.loads(lock.read_text(encoding="utf-8")).get("_meta", {}).get("sources", ()):
                yield os.path.expandvars(source["url"])


def _with_login(url: str, name: str) -> str:
    """Return an index of Poetry's with the login that Poetry reads from variables."""
    variable = re.sub(r"[^A-Z0-9]", "_", name.upper())
    user, password = (os.environ.get(f"POETRY_HTTP_BASIC_{variable}_{part}", "") for part in ("USERNAME", "PASSWORD"))
    parts = urlsplit(url)
    if not user or "@" in parts.netloc:
        return url
    return parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}").geturl()
