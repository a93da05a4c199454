"""The format of a checkpoint, which brings an empty database to a revision without running the earlier ones.

``checkpoint.json`` and ``checkpoint.sql`` are beside env.py. `migrate checkpoint` writes them, the builder compares
them with the tree, and an upgrade of an empty database begins with them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_migrate.invocation.redaction import SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FORMAT = 2
DESCRIPTION = "checkpoint.json"
SCRIPT = "checkpoint.sql"

# The script's placeholders for the schema and the login, whose names are known only at run time.
HOME = "migrate_checkpoint_home"
LOGIN = "migrate_checkpoint_login"


class NotedTable(NamedTuple):
    """A version table, and the revisions in it. A schema that is empty is the home schema.

    ``configured`` is the one that env.py gives to ``context.configure()``, None if it gives none.
    """

    configured: str | None
    schema: str
    name: str
    heads: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The content of ``checkpoint.json``.

    Attributes:
        heads: the revisions that the database is at.
        revisions: the SHA-256 of each revision's file by its id, parents first.
        files: the SHA-256 of the other files of the tree by their paths from there, env.py among them.
        x_arguments: the hash of the ``-x`` arguments with which the revisions were replayed.
        variables: the relevant environment variables of that time: a hash of each, or None if it was not set.
        tables: the version tables, in the order in which env.py comes to them.
        acts_as: the role that env.py sets, None if it acts as its login.
        home: the schema that unqualified names led to when the revisions were replayed.
        any_schema: whether script and revisions have the same result in a schema of any name.
        time_zone: the time zone that sessions must have, None if none is needed.
        schemas: the other schemas that the script makes and fills.
        schemas_before: the other schemas that the script fills, and that env.py makes before the revisions run.
        extensions: the schema of each extension, empty for the home schema.
        roles: the roles that must exist.
        revokes: whether a revision revokes privileges. The default privileges may differ where it runs.
        postgresql: the major versions on which it was verified.
        fingerprint: the fingerprint of the whole schema (`lambda_migrate.database.schema`).
        rows: the number of rows of each table that has some.
        allowed: the names that ``--allow`` accepted.
        script_sha256: the hash of ``checkpoint.sql``.
    """

    heads: tuple[str, ...]
    revisions: Mapping[str, str]
    files: Mapping[str, str]
    x_arguments: str
    variables: Mapping[str, str | None]
    tables: tuple[NotedTable, ...]
    acts_as: str | None
    home: str
    any_schema: bool
    time_zone: str | None
    schemas: tuple[str, ...]
    schemas_before: tuple[str, ...]
    extensions: Mapping[str, str]
    roles: tuple[str, ...]
    revokes: bool
    postgresql: tuple[int, ...]
    fingerprint: str
    rows: Mapping[str, int]
    allowed: tuple[str, ...]
    script_sha256: str
    format: int = FORMAT

    @property
    def revision(self) -> str:
        """The revisions that the database is at, as one text."""
        return ",".join(sorted(self.heads))


def to_text(checkpoint: Checkpoint) -> str:
    """Return the text of ``checkpoint.json``, for people and for git."""
    document = {**asdict(checkpoint), "tables": [table._asdict() for table in checkpoint.tables]}
    return json.dumps(document, indent=2) + "\n"


def read_checkpoint(tree: Path) -> Checkpoint | None:
    """Return the checkpoint beside env.py, or None if there is none.

    Raises:
        ValueError: ``checkpoint.json`` has another format.
    """
    try:
        text = (tree / DESCRIPTION).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    document: Any = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"no checkpoint of format {FORMAT}")
    lists = {
        name: tuple(document.get(name, ()))
        for name in ("heads", "schemas", "schemas_before", "roles", "postgresql", "allowed")
    }
    try:
        tables = tuple(
            NotedTable(**{**table, "heads": tuple(table["heads"])})  # as JSON has no tuples
            for table in document["tables"]
        )
        return Checkpoint(**{**document, **lists, "tables": tables})
    except (KeyError, TypeError) as error:
        raise ValueError(f"no checkpoint of format {FORMAT}: {error}") from None


def read_script(tree: Path, checkpoint: Checkpoint) -> str:
    """Return the text of ``checkpoint.sql``.

    Raises:
        ValueError: it is not the script that ``checkpoint.json`` describes.
        OSError: it cannot be read.
    """
    content = (tree / SCRIPT).read_bytes()
    if hashlib.sha256(content).hexdigest() != checkpoint.script_sha256:
        raise ValueError(f"{SCRIPT} is not the one that {DESCRIPTION} was written with")
    return content.decode()


def placed(script: str, schema: str, login: str) -> str:
    """Return the script for a schema and a role, whose names are given as SQL has them, in quotes if need be."""
    return script.replace(HOME, schema).replace(LOGIN, login)


# The function itself sets these for libpq.
_OF_LIBPQ = ("PGAPPNAME", "PGCONNECT_TIMEOUT", "PGOPTIONS", "PGSSLMODE", "PGSSLROOTCERT")
_IS_SET = "set"


@dataclass(frozen=True)
class Surroundings:
    """The inputs of env.py and the revisions besides their files.

    ``templates`` are the further variables in `DATABASE_ENV`, and ``url_variables`` those that get the URL.
    """

    x_arguments: Mapping[str, str]
    environ: Mapping[str, str]
    templates: Mapping[str, str]
    url_variables: tuple[str, ...]

    @property
    def x_digest(self) -> str:
        """The hash of the ``-x`` arguments, with their placeholders and in their order."""
        return _digest(json.dumps([*self.x_arguments.items()]))

    def noted(self, names: Iterable[str]) -> dict[str, str | None]:
        """Return a checkpoint's notes about these variables and those in ``templates``. They contain no address."""
        addresses = {name for name, text in self.templates.items() if "{" in text}
        left = {*names, *self.templates} - addresses - {*self.url_variables, *_OF_LIBPQ}
        variables = {**self.environ, **self.templates}
        return {name: self._noted(name, variables.get(name)) for name in sorted(left)}

    def differ_from(self, checkpoint: Checkpoint) -> str | None:
        """Return the first difference from when the checkpoint was made, or None."""
        if self.x_digest != checkpoint.x_arguments:
            return "the -x arguments are not those with which it was made"
        for name, value in self.noted(checkpoint.variables).items():
            if name not in checkpoint.variables or checkpoint.variables[name] != value:
                return f"the environment variable {name} is not what it was when it was made"
        return None

    @staticmethod
    def _noted(name: str, value: str | None) -> str | None:
        if value is None:
            return None
        # A password could be guessed from its hash, which goes into the repository.
        return _IS_SET if SECRET_NAME.search(name) else _digest(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


# The settings that pg_dump sets in its own session. With others, a session could read the script differently. pg_dump
# qualifies each name outside pg_catalog, so with this search_path nothing is resolved in a schema of other roles.
_SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "check_function_bodies": "off",  # a function may come before what it uses
    "client_min_messages": "warning",
    "standard_conforming_strings": "on",
    "IntervalStyle": "postgres",
    "xmloption": "content",
}
CURRENT_SETTINGS = (
    "pg_catalog.json_build_object("
    + ", ".join(f"'{name}', pg_catalog.current_setting('{name}')" for name in _SETTINGS)
    + ")::pg_catalog.text"
)


def in_session(script: str, current: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the placed script between statements that set what it needs, and set it as it is now (``current``).

    The server reads a text as a whole before it runs its first statement, so each is sent by itself.
    """
    return _set(_SETTINGS), script, _set(current)


def _set(settings: Mapping[str, str]) -> str:
    values = ", ".join(f"pg_catalog.set_config('{name}', {_literal(value)}, true)" for name, value in settings.items())
    return f"SELECT {values}"


def _literal(text: str) -> str:
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
