"""Hints for errors of third-party libraries whose messages do not say what to do. The reviewer gives them, too."""

from __future__ import annotations

import ast
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.suggestions import database_env, puts_password_into_url, to_paste

if TYPE_CHECKING:
    from collections.abc import Mapping

# How starlette, decouple, environs, django-environ and dynaconf name a variable that is not set.
_NAMED = (
    re.compile(r"Config '(\w+)' is missing"),
    re.compile(r"^(\w+) not found\. Declare it as envvar"),
    re.compile(r"[Ee]nvironment variable [\"'`]?([A-Z][A-Z0-9_]+)[\"'`]? (?:is )?(?:not set|required|missing)"),
    re.compile(r"Set the (\w+) environment variable"),
    re.compile(r"^'\w*Settings' object has no attribute '([A-Z][A-Z0-9_]+)'"),
)

# The modules of other databases' drivers, as SQLAlchemy imports them.
_OTHER_DRIVERS = frozenset(
    {"aiomysql", "aioodbc", "aiosqlite", "asyncmy", "cx_Oracle", "mariadb", "MySQLdb", "oracledb", "pymysql", "pyodbc"}
)


def advice(error: BaseException, *, began: bool) -> str:
    """Return what to do about an exception of env.py or a revision, or an empty text.

    ``began`` is True if Alembic had read the version table.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError) and any(frame.name == "autocommit_block" for frame in frames):
        return (
            " (an autocommit_block cannot leave a transaction that env.py has begun around all revisions: leave the"
            " transaction to context.begin_transaction())"
        )
    if "requires an async driver" in str(error):
        return " (set DB_DRIVER to the driver that env.py works with, such as postgresql+asyncpg)"
    if type(error).__name__ == "UnknownServiceError":  # botocore's; the backend may have another botocore, or none
        return (
            " (the package has the data of those AWS services that the builder found in the code: name the others in"
            " `aws_services` of the stage)"
        )
    if isinstance(error, KeyError) and frames and frames[-1].filename.endswith("configparser.py"):
        return " (a section that the configuration lacks; fileConfig needs loggers, handlers and formatters)"
    return "" if began else _about_the_address(error)


def _about_the_address(error: BaseException) -> str:
    """Return what to do about an error of env.py before it has connected."""
    if type(error).__name__ == "MissingGreenlet":  # SQLAlchemy's
        return (
            " (env.py opens a sync engine with an async driver: set DB_DRIVER to a sync one, or give the variable that"
            " env.py reads an address with its own driver in DATABASE_ENV, such as"
            " postgresql+psycopg2://{user_quoted}:{password_quoted}@{host}:{port}/{database})"
        )
    if isinstance(error, ModuleNotFoundError) and error.name in _OTHER_DRIVERS:
        return (
            " (env.py uses the address of another database: let it read the function's, see DATABASE_URL_ENV and"
            " DATABASE_ENV)"
        )
    return _about_variables(error)


def missing_variables(error: BaseException) -> list[str]:
    """Return the variables that env.py reads, or that a pydantic settings class requires, and that are not set."""
    if named := next(filter(None, (pattern.search(str(error)) for pattern in _NAMED)), None):
        return [named[1]]
    if isinstance(error, KeyError):
        return [str(argument) for argument in error.args]
    if type(error).__name__ != "ValidationError":
        return []
    try:
        problems = error.errors()  # type: ignore[attr-defined]
        # pydantic 1 has another name for the same.
        missing = [one["loc"] for one in problems if one["type"] in {"missing", "value_error.missing"}]
        prefixed, prefix = _prefixed_fields(error)
        return [f"{prefix if place[0] in prefixed else ''}{place[0]}".upper() for place in missing if place]
    except Exception:  # noqa: BLE001 - another library's error of this name
        return []


def _prefixed_fields(error: BaseException) -> tuple[Mapping[str, Any], str]:
    """Return the fields of the settings class that failed, and the prefix of their variables.

    The error has the name of the class only. The frames of its constructor have the object. A field's alias gets no
    prefix.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name in ("__pydantic_self__", "self"):
            kind: Any = type(frame.f_locals.get(name))
            if kind.__name__ == getattr(error, "title", None):
                return getattr(kind, "model_fields", {}), kind.model_config.get("env_prefix", "")
    return {}, ""


def _about_variables(error: BaseException) -> str:
    """Return what to do about variables that env.py reads and that are not set."""
    names = missing_variables(error)
    if not names:
        return ""
    escapes = not _puts_password_into_url(error)
    templates = database_env(names, escapes=escapes)
    if templates:
        # A password or port with a default is not missing, but its default is not this database's.
        parts = _parts_of_settings(error, escapes=escapes)
        templates |= {name: part for name, part in parts.items() if part != "{url}" and "://" not in part}
    # A name in capitals is a variable; any other may be a key of something else.
    others = [name for name in names if name not in templates and name.isupper()]
    paste = f"; in the stage: {to_paste(templates, others)}" if templates or others else ""
    return f" (an environment variable? See DATABASE_URL_ENV and DATABASE_ENV{paste})"


def _puts_password_into_url(error: BaseException) -> bool:
    """Return whether a module in the traceback puts a password into an address without escaping it."""
    for name in {frame.filename for frame in traceback.extract_tb(error.__traceback__)}:
        try:
            source = Path(name).read_text(encoding="utf-8")
            if puts_password_into_url(source, ast.parse(source)):
                return True
        except (OSError, ValueError, SyntaxError):  # a module without a source, such as <frozen importlib>
            continue
    return False


def _parts_of_settings(error: BaseException, *, escapes: bool) -> dict[str, str]:
    """Return a DATABASE_ENV for all fields of the settings class that failed, in their order."""
    try:
        fields, prefix = _prefixed_fields(error)
        aliases = {name: getattr(field, "validation_alias", None) for name, field in fields.items()}
        names = [alias if isinstance(alias, str) else f"{prefix}{name}".upper() for name, alias in aliases.items()]
        return database_env(names, escapes=escapes)
    except Exception:  # noqa: BLE001 - another library's object with these attributes
        return {}
