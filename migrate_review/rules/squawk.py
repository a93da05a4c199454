"""Runs squawk on a revision's SQL, and lists how the reviewer treats each of squawk's rules.

squawk detects hazards from the SQL alone. If a measurement can decide, the reviewer believes a rule only if the
measurement confirms it. Otherwise it reports squawk's finding unchanged.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from migrate_review.errors import ReviewError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from migrate_review.observation import Statement

# Excluded rules, each with the reason.
EXCLUDED: Mapping[str, str] = {
    "require-lock-timeout": "the function sets lock_timeout for every attempt, and retries",
    "require-statement-timeout": "the function sets statement_timeout, up to Lambda's deadline",
    "require-timeout-settings": "the same, by its former name",
    "prefer-text-field": "a longer varchar rewrites nothing since PostgreSQL 9.2; the review measures other rewrites",
    "prefer-identity": "Alembic writes SERIAL for an integer key; the two differ in privileges, not in safety",
    "prefer-bigint-over-smallint": "a small integer is a choice; prefer-bigint-over-int checks keys",
    "ban-drop-not-null": "it affects readers only when new code writes NULL; dropping a column in two steps needs it",
    "ban-drop-constraint": "it allows more rows, and breaks no existing query",
    "ban-drop-type": "PostgreSQL refuses while a column uses the type",
    "ban-drop-schema": "PostgreSQL refuses while the schema has objects; ban-drop-table covers its tables",
    "ban-alter-identity": "it changes whether a row may choose its number; generated-always covers the failing inserts",
    "require-enum-value-ordering": "most revisions append labels; the order matters only to ORDER BY",
    "require-concurrent-partition-detach": "DETACH holds its locks briefly: the function's lock_timeout and retries"
    " suffice",
}

# Reported only if the measured statement reads or rewrites rows while other sessions wait. squawk also warns of a
# longer varchar, SET NOT NULL with a validated check, and a constant default, which block no session.
IF_OTHERS_WAIT = frozenset({
    "require-concurrent-index-creation",
    "require-concurrent-reindex",
    "adding-foreign-key-constraint",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "adding-serial-primary-key-field",
    "adding-not-nullable-field",
    "adding-field-with-default",
    "changing-column-type",
    "ban-alter-domain-with-add-constraint",
})  # fmt: skip

# The other known rules have their own checks, which compare the schemas before and after a revision. This is exact for
# any SQL.

# Reported without a measurement: there is nothing to measure, or the failure itself is the measurement.
AS_REPORTED = frozenset({
    "renaming-object",
    "ban-truncate-cascade",
    "ban-drop-database",
    "transaction-nesting",
    "ban-concurrent-index-creation-in-transaction",
    "identifier-too-long",
    "ban-create-domain-with-constraint",
    "prefer-robust-stmts",
})  # fmt: skip

_CANNOT_READ = "syntax-error"
_PG_VERSION = "18.0"

# The key of a script: a revision's id, with the direction if there is a script for each.
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Remark:
    """One remark of squawk's. ``statement`` is the position of the statement in the script."""

    statement: int
    rule: str
    message: str


@dataclass(frozen=True)
class _Script:
    """A revision's SQL for squawk. ``lines`` contains the statement's position for each line."""

    text: str
    lines: tuple[int, ...]


def remarks(
    scripts: Mapping[_Key, Sequence[Statement]],
    *,
    excluded: Iterable[str] = tuple(EXCLUDED),
) -> dict[_Key, tuple[Remark, ...]]:
    """Return squawk's remarks on the statements of each script, without the excluded rules.

    Raises:
        ReviewError: squawk is not installed or does not answer.
    """
    unread: dict[_Key, set[int]] = {key: set() for key in scripts}
    while True:
        prepared = {key: _script(scripts[key], skip) for key, skip in unread.items()}
        found = _run(prepared, excluded)
        # If squawk cannot parse a statement, it reports nothing else for the file. So leave that statement out.
        failed = {
            (key, remark.statement)
            for key, several in found.items()
            for remark in several
            if remark.rule == _CANNOT_READ and remark.statement not in unread[key]
        }
        if not failed:
            return {
                key: tuple(remark for remark in several if remark.rule != _CANNOT_READ)
                for key, several in found.items()
            }
        for key, statement in failed:
            unread[key].add(statement)


def _script(statements: Sequence[Statement], skip: Iterable[int]) -> _Script:
    """Return the SQL with BEGIN and COMMIT, because some of squawk's rules depend on the transaction."""
    text: list[str] = []
    lines: list[int] = []

    def write(sql: str, statement: int) -> None:
        written = sql.rstrip().rstrip(";").split("\n")
        text.extend([*written, ";"])  # on a line of its own: the last one may end in a comment
        lines.extend([statement] * (len(written) + 1))

    in_transaction = False
    for position, statement in enumerate(statements):
        if position in skip:
            continue
        if in_transaction and statement.after_commit:
            write("COMMIT", position)
            in_transaction = False
        if statement.in_transaction != in_transaction:
            write("BEGIN" if statement.in_transaction else "COMMIT", position)
            in_transaction = statement.in_transaction
        write(statement.sql, position)
    if in_transaction:
        # If the revision itself commits, squawk reports this COMMIT as superfluous.
        write("COMMIT", len(statements) - 1)
    return _Script("\n".join(text) + "\n", tuple(lines))


def _run(scripts: Mapping[_Key, _Script], excluded: Iterable[str]) -> dict[_Key, tuple[Remark, ...]]:
    if not scripts:
        return {}
    with tempfile.TemporaryDirectory() as directory:
        files = {str(Path(directory, f"{position}.sql")): key for position, key in enumerate(scripts)}
        for file, key in files.items():
            Path(file).write_text(scripts[key].text, encoding="utf-8", newline="\n")
        config = Path(directory, "squawk.toml")
        config.write_text("", encoding="utf-8")  # the user's own may exclude rules
        options = ["--config", str(config), "--pg-version", _PG_VERSION, "--reporter", "json"]
        reported = _reported([*options, "--exclude", ",".join(excluded), *files])
    found: dict[_Key, list[Remark]] = {key: [] for key in scripts}
    for entry in reported:
        key = files[entry["file"]]
        statement = scripts[key].lines[entry["line"]]
        found[key].append(Remark(statement, entry["rule_name"], entry["message"]))
    return {key: tuple(dict.fromkeys(several)) for key, several in found.items()}


def _reported(arguments: Sequence[str]) -> list[dict[str, Any]]:
    beside_python = Path(sys.executable).with_name("squawk")
    program = str(beside_python) if beside_python.is_file() else shutil.which("squawk")
    if program is None:
        raise ReviewError("squawk is not installed; install it with: pip install squawk-cli")
    # With findings, it exits with 1 and still writes its JSON to standard output.
    answer = subprocess.run(  # noqa: S603 - the program that the requirements bring, on files written just now
        [program, *arguments], capture_output=True, text=True, check=False
    )
    try:
        reported: list[dict[str, Any]] = json.loads(answer.stdout)
    except ValueError as error:
        output = " ".join((answer.stderr or answer.stdout).split())
        raise ReviewError(f"squawk did not answer: {output}") from error
    return reported
