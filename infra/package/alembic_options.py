"""Reads Alembic's options from alembic.ini and pyproject.toml.

It returns the same values as `alembic.config.Config`, and tests compare the two. The class itself is not used, because
its module imports SQLAlchemy, which takes longer than all other imports of a review.
"""

from __future__ import annotations

import os
import re
from configparser import ConfigParser
from typing import TYPE_CHECKING, Any

from infra.package.uv_tool import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SECTION = "alembic"
_SEPARATORS: Mapping[str, str] = {"space": " ", "newline": "\n", "os": os.pathsep, ":": ":", ";": ";"}
# Each list of paths in alembic.ini: the options that name its separator, and how it is split without one.
_LISTS: Mapping[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "version_locations": (("path_separator", "version_path_separator"), re.compile(r", *|(?: +)")),
    "prepend_sys_path": (("path_separator",), re.compile(r", *|(?: +)|\:")),
}


class AlembicOptions:
    """The options of a configuration. Those of ``ini`` override those of ``toml``, a pyproject.toml.

    Its methods raise errors of configparser, ValueError, TypeError and KeyError for invalid options.
    """

    def __init__(self, ini: Path | None, toml: Path) -> None:
        """Read both files. Raises an error of configparser, ValueError or `PackageError` if one cannot be read."""
        self.ini = ConfigParser()
        if ini is not None:
            self.ini = ConfigParser({"here": ini.absolute().parent.as_posix()})
            self.ini.read(ini, encoding="locale")
        table = read_toml(toml).get("tool", {}).get(_SECTION, {}) if toml.is_file() else {}
        if not isinstance(table, dict):
            raise TypeError("[tool.alembic] is not a table")
        self._toml = table
        self._here = {"here": toml.absolute().parent.as_posix()}

    def get(self, name: str) -> Any:  # noqa: ANN401 - in a pyproject.toml, an option may be of any type
        """Return an option, or None."""
        return self._of_ini(name) if self.ini.has_option(_SECTION, name) else self._of_toml(name)

    def flag(self, name: str) -> bool:
        """Return a boolean option."""
        if self.ini.has_option(_SECTION, name):
            return self._of_ini(name) == "true"
        value = self._toml.get(name, False)
        if not isinstance(value, bool):
            raise TypeError(f"{name} is neither true nor false")
        return value

    def paths(self, name: str) -> list[str]:
        """Return a list of paths: ``version_locations`` or ``prepend_sys_path``."""
        text = self._of_ini(name)
        if not text:
            several = self._of_toml(name) or []
            if not isinstance(several, list):
                raise TypeError(f"{name} is not a list")
            return several
        options, legacy = _LISTS[name]
        separator = next(((option, found) for option in options if (found := self._of_ini(option)) is not None), None)
        if separator is None:
            return legacy.split(text)
        option, found = separator
        if found not in _SEPARATORS:
            raise ValueError(f"{found!r} is not a valid value for {option}; expected {', '.join(_SEPARATORS)}")
        return [each.strip() for each in text.split(_SEPARATORS[found]) if each]

    def _of_ini(self, name: str) -> str | None:
        return self.ini.get(_SECTION, name, fallback=None)

    def _of_toml(self, name: str) -> Any:  # noqa: ANN401 - as above
        value = self._toml.get(name)
        if isinstance(value, str):
            return value % self._here
        if isinstance(value, list):
            return [each % self._here if isinstance(each, str) else each for each in value]
        return value
