"""Alembic's options are read as Alembic reads them."""

from __future__ import annotations

import warnings
from configparser import Error as ConfigError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from alembic.config import Config
from alembic.util import CommandError

from infra.package.alembic_options import AlembicOptions

if TYPE_CHECKING:
    from pathlib import Path

# Each an alembic.ini and a pyproject.toml, of which one may be missing.
FILES = {
    "ini": ("[alembic]\nscript_location = %(here)s/db\nversion_locations = %(here)s/a %(here)s/b\n", None),
    "commas": ("[alembic]\nversion_locations = a, b,c  d\nprepend_sys_path = .,src:lib\n", None),
    "os": ("[alembic]\npath_separator = os\nversion_locations = a b: c:\nprepend_sys_path = .:src\n", None),
    "newline": ("[alembic]\npath_separator = newline\nversion_locations =\n  a b\n  c\nprepend_sys_path = .\n", None),
    "older_option": (
        "[alembic]\nversion_path_separator = ;\nversion_locations = a b;c\nprepend_sys_path = a;b\n",
        None,
    ),
    "both_separators": (
        "[alembic]\npath_separator = space\nversion_path_separator = :\nversion_locations = a b:c\n",
        None,
    ),
    "other_separator": ("[alembic]\npath_separator = comma\nversion_locations = a\nprepend_sys_path = .\n", None),
    "empty_values": ("[alembic]\nscript_location =\nversion_locations =\nprepend_sys_path =\n", None),
    "percent": ("[alembic]\nscript_location = 100%\n", None),
    "unknown_name": ("[alembic]\nscript_location = %(root)s/db\n", None),
    "own_name": ("[DEFAULT]\nroot = there\n[alembic]\nscript_location = %(root)s/db\nsourceless = true\n", None),
    "flags": ("[alembic]\nrecursive_version_locations = TRUE\nsourceless = true\n", None),
    "another_section": ("[main]\nscript_location = db\n", None),
    "twice": ("[alembic]\nscript_location = a\nscript_location = b\n", None),
    "databases": ("[alembic]\ndatabases = one, two\nscript_location = multidb\n", None),
    "capitals": ("[alembic]\nScript_Location = db ; not a comment\n# a comment\n", None),
    "toml": (None, '[tool.alembic]\nscript_location = "%(here)s/db"\nprepend_sys_path = [".", "%(here)s/src"]\n'),
    "toml_flags": (None, "[tool.alembic]\nsourceless = true\nrecursive_version_locations = false\n"),
    "toml_flag_as_text": (None, '[tool.alembic]\nsourceless = "true"\n'),
    "toml_percent": (None, '[tool.alembic]\nscript_location = "50%%/%(there)s"\n'),
    "toml_number": (None, "[tool.alembic]\nscript_location = 5\n"),
    "toml_table": (None, "[tool]\nalembic = 1\n"),
    "toml_without": (None, "[project]\nname = 'a'\n"),
    "both": (
        "[alembic]\nscript_location = ini\n",
        '[tool.alembic]\nscript_location = "toml"\nsourceless = true\nversion_locations = ["%(here)s/v"]\n',
    ),
    "both_but_empty": (
        "[alembic]\nscript_location =\nversion_locations =\n",
        '[tool.alembic]\nscript_location = "toml"\nversion_locations = ["v"]\n',
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_the_options_are_those_that_alembic_reads(name: str, tmp_path: Path) -> None:
    ini_text, toml_text = FILES[name]
    ini, toml = tmp_path / "alembic.ini", tmp_path / "pyproject.toml"
    for file, text in ((ini, ini_text), (toml, toml_text)):
        if text is not None:
            file.write_text(text)
    given = ini if ini_text is not None else None

    assert read_by_us(given, toml) == read_by_alembic(given, toml)


def read_by_us(ini: Path | None, toml: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with suppress(Exception):
        options = AlembicOptions(ini, toml)
        for name in ("databases", "script_location"):
            found[name] = _or_error(options.get, name)
        for name in ("version_locations", "prepend_sys_path"):
            found[name] = _or_error(options.paths, name)
        for name in ("sourceless", "recursive_version_locations"):
            found[name] = _or_error(options.flag, name)
        found["section"] = ini is not None and options.ini.has_section("alembic")
    return found


def read_by_alembic(ini: Path | None, toml: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = Config(ini, toml_file=toml)
        options.file_config, options.toml_alembic_config  # noqa: B018 - they are read on first use
        for name in ("databases", "script_location"):
            found[name] = _or_error(options.get_alembic_option, name)
        found["version_locations"] = _or_error(lambda _: options.get_version_locations_list() or [], "")
        found["prepend_sys_path"] = _or_error(lambda _: options.get_prepend_sys_paths_list() or [], "")
        for name in ("sourceless", "recursive_version_locations"):
            found[name] = _or_error(options.get_alembic_boolean_option, name)
        found["section"] = ini is not None and options.file_config.has_section("alembic")
    return found


def _or_error(ask: Any, name: str) -> Any:  # noqa: ANN401 - whatever an option is
    try:
        return ask(name)
    except (CommandError, ConfigError, KeyError, TypeError, ValueError):
        return "error"
