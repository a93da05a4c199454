"""Decides which targets an event may name: the patterns of TARGETS_ALLOWED, and the targets of the stage's rollouts.

Without either, an event may name no target but the stage's own secret and database. The stack writes the variable with
`with_rollout`, and the function applies it again, so that both agree.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_migrate.invocation.request import Target

FIELDS = ("secret_id", "database", "schema")
ANY = "*"

# Names of PostgreSQL and Amazon RDS. No pattern allows them.
_NEVER: Mapping[str, Sequence[str]] = {
    "secret_id": (),
    "database": ("template*", "rdsadmin", "pg_*", "information_schema"),
    "schema": ("template*", "rdsadmin", "pg_*", "information_schema"),
}
# Databases that every server has. Not even a tenant's secret may lead there.
_OF_THE_SERVER = frozenset({"template0", "template1", "rdsadmin"})


def with_rollout(given: Mapping[str, Sequence[str]], rollout: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return the patterns for each field: those given, and those that the stage's ``rollout`` needs.

    The rows of a query may name any target, so a query needs ``*`` for each field that ``given`` leaves open. Its
    secrets begin with ``secret_prefix``.
    """
    allowed = {field: list(given[field]) for field in FIELDS if field in given}
    if not rollout:
        return allowed
    for target in rollout.get("targets") or ():
        for field in FIELDS:
            if target.get(field):
                _add(allowed, field, re.sub(r"([*?[])", r"[\1]", str(target[field])))
    if prefix := rollout.get("secret_prefix"):
        _add(allowed, "secret_id", f"{prefix}*")
        _add(allowed, "secret_id", f"arn:*:secretsmanager:*:secret:{prefix}*")
    elif rollout.get("secret_tag"):
        # The function's role may read only the secrets that have the tag.
        _add(allowed, "secret_id", ANY)
    if rollout.get("query"):
        for field in ("database", "schema") if rollout.get("secret_prefix") else FIELDS:
            allowed.setdefault(field, [ANY])
    return allowed


def _add(allowed: dict[str, list[str]], field: str, pattern: str) -> None:
    patterns = allowed.setdefault(field, [])
    if pattern not in patterns:
        patterns.append(pattern)


def check_target(target: Target, allowed: Mapping[str, Sequence[str]], own_secret: str) -> None:
    """Check the names of an event's target against the patterns of a stage.

    A database that no pattern allows may still be the stage's own, whose name may be in its secret: see
    `is_database_allowed`.

    Raises:
        InvalidRequest: the stage does not allow the target.
    """
    if target.secret_id is not None and target.secret_id != own_secret:
        _check("secret_id", target.secret_id, allowed)
    if target.schema is not None:
        _check("schema", target.schema, allowed)
    if target.database in _OF_THE_SERVER:
        raise not_allowed("database", target.database, allowed)


def is_database_allowed(database: str, allowed: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a pattern allows the database."""
    return _is_allowed("database", database, allowed)


def is_of_the_server(database: str) -> bool:
    """Return whether every server has a database of this name, which no tenant's secret may name."""
    return database in _OF_THE_SERVER


def not_allowed(field: str, name: str, allowed: Mapping[str, Sequence[str]]) -> InvalidRequest:
    """Return the error for a target that the stage does not allow."""
    if _matches(name, _NEVER[field]):
        return InvalidRequest(f"target.{field} may never be {name!a}: the name belongs to PostgreSQL or Amazon RDS")
    patterns = allowed.get(field)
    known = f"allowed: {', '.join(patterns)[:200]}" if patterns else f"no {field} but the stage's own is allowed"
    return InvalidRequest(
        f"target.{field} {name!a} is not allowed on this stage ({known}); add a pattern to the stage's"
        " `targets_allowed` in cdk.json, or to TARGETS_ALLOWED"
    )


def _check(field: str, name: str, allowed: Mapping[str, Sequence[str]]) -> None:
    if not _is_allowed(field, name, allowed):
        raise not_allowed(field, name, allowed)


def _is_allowed(field: str, name: str, allowed: Mapping[str, Sequence[str]]) -> bool:
    return _matches(name, allowed.get(field, ())) and not _matches(name, _NEVER[field])


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
