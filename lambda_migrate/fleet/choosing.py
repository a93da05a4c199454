"""Chooses the targets of a rollout: from its input, an earlier rollout or plan, and the settings' exclusions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet.folder import FAILED, MIGRATED
from lambda_migrate.fleet.outcome_reader import last_of_each
from lambda_migrate.fleet.target import listing_of
from lambda_migrate.invocation.errors import ALLOW_FIRST, ConfigurationError, DowngradeRefused, InvalidRequest
from lambda_migrate.invocation.request import ROLLOUT_INPUT, is_downgrade, is_rollout_name
from lambda_migrate.invocation.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_migrate.fleet.folder import Folder
    from lambda_migrate.fleet.waves import Tenant
    from lambda_migrate.invocation.settings import Settings

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Options:
    """A rollout's input. ``names`` are the names of the targets to migrate, None for all.

    ``check`` is a plan that compares the targets' schemas. ``retry_of`` is a rollout whose failed targets are migrated,
    ``approved`` a plan whose targets are. ``downgrade_to`` is the revision for the targets that the rollout
    ``migrated_by`` has migrated.
    """

    plan: bool = False
    check: bool = False
    names: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    retry_of: str | None = None
    approved: str | None = None
    downgrade_to: str | None = None
    migrated_by: str | None = None


@dataclass(frozen=True)
class Chosen:
    """The targets of a rollout. ``names`` is None for a rollout of all targets.

    ``excluded`` are the names of the others, each with the reason.
    """

    tenants: list[Tenant]
    names: tuple[str, ...] | None
    excluded: dict[str, str]


def parse_options(given: Mapping[str, Any]) -> Options:
    """Return the input of a rollout.

    Raises:
        InvalidRequest: it is malformed, or its fields contradict each other.
    """
    unknown = sorted(given.keys() - set(ROLLOUT_INPUT))
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0]!a} in the rollout's input; known: {', '.join(ROLLOUT_INPUT)}")
    plan = given.get("plan", False)
    if not isinstance(plan, bool):
        raise InvalidRequest("plan must be true or false in the rollout's input")
    check = given.get("check", False)
    if not isinstance(check, bool) or (check and not plan):
        raise InvalidRequest("check must be true or false in the rollout's input, and only a plan checks")
    options = Options(
        plan=plan,
        check=check,
        names=_names(given, "targets"),
        exclude=_names(given, "exclude") or (),
        downgrade_to=given.get("downgrade_to"),
        **{name: _rollout(given, name) for name in ("retry_of", "approved", "migrated_by")},
    )
    _check(options)
    return options


def _check(options: Options) -> None:
    """Raise `InvalidRequest` if fields of the input contradict each other."""
    for name, value in (("retry_of", options.retry_of), ("approved", options.approved)):
        if value is not None and options.names is not None:
            raise InvalidRequest(f"{name} names the targets: leave targets out of the rollout's input")
    if options.approved is not None and (options.plan or options.retry_of is not None or options.exclude):
        raise InvalidRequest("approved runs a plan: leave plan, retry_of and exclude out of the rollout's input")
    if (options.downgrade_to is None) != (options.migrated_by is None):
        raise InvalidRequest("downgrade_to and migrated_by need each other in the rollout's input")
    if options.downgrade_to is not None:
        if not is_downgrade(options.downgrade_to):
            raise InvalidRequest("downgrade_to must be base or a revision id in the rollout's input")
        if options.plan or options.retry_of is not None or options.approved is not None:
            raise InvalidRequest("downgrade_to: leave plan, retry_of and approved out of the rollout's input")


def _names(given: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
    names = given.get(field)
    if names is None:
        return None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    raise InvalidRequest(f"{field} must be a list of names in the rollout's input")


def _rollout(given: Mapping[str, Any], field: str) -> str | None:
    name = given.get(field)
    if name is None or (isinstance(name, str) and is_rollout_name(name)):
        return name
    raise InvalidRequest(f"{field} must be the name of a rollout in the rollout's input")


def choose(options: Options, listed: Sequence[Tenant], folder: Folder, *, settings: Settings, package: str) -> Chosen:
    """Return the targets of a rollout out of all that were listed. ``folder`` is any rollout's.

    Raises:
        InvalidRequest: a target does not exist or is excluded, or the earlier rollout cannot be continued.
        ConfigurationError: the settings exclude a name that is no target, in a rollout of all targets.
        DowngradeRefused: the stage allows no downgrade.
    """
    excluded = excluded_names(options, listed, settings)
    names = options.names
    if options.retry_of is not None:
        names = _failed_in(replace(folder, name=options.retry_of), listed)
    elif options.approved is not None:
        plan = _plan(replace(folder, name=options.approved), package)
        known = {tenant.name for tenant in listed}
        excluded |= {each["name"]: each["reason"] for each in plan.get("excluded") or () if each["name"] in known}
        names = _approved(plan, replace(folder, name=options.approved), _without(listed, excluded))
    tenants = _named(listed, names)
    if options.downgrade_to is not None and options.migrated_by is not None:
        if not settings.allow_downgrade:
            raise DowngradeRefused(f"downgrade is not allowed on stage {settings.stage}; {ALLOW_FIRST}")
        tenants = _migrated_in(replace(folder, name=options.migrated_by), tenants, options.downgrade_to)
        names = tuple(tenant.name for tenant in tenants)
    if names is None:
        _check_exclusions(listed, settings)
    if options.names is not None:
        for name in options.names:
            if name in excluded:
                raise InvalidRequest(f"target {name!a} is excluded: {excluded[name]}")
    return Chosen(_without(tenants, excluded), names, excluded)


def _without(tenants: Sequence[Tenant], excluded: Mapping[str, str]) -> list[Tenant]:
    return [tenant for tenant in tenants if tenant.name not in excluded]


def excluded_names(options: Options, listed: Sequence[Tenant], settings: Settings) -> dict[str, str]:
    """Return the names of the targets that are left out, each with the reason."""
    known = {tenant.name for tenant in listed}
    for name in options.exclude:
        if name not in known:
            raise InvalidRequest(f"there is no target {name!a} to exclude; there are {len(known)}")
    excluded = {name: reason for name, reason in _exclusions(settings).items() if name in known}
    return {**excluded, **dict.fromkeys(options.exclude, "excluded when the rollout was started")}


def _exclusions(settings: Settings) -> dict[str, str]:
    """Return the names that the settings exclude today, each with the reason."""
    today = datetime.now(timezone.utc).date()
    dated = ((entry, _until(entry)) for entry in settings.rollout.get("excluded") or ())
    return {entry["name"]: f"{entry['reason']} (until {until.isoformat()})" for entry, until in dated if until >= today}


def _check_exclusions(listed: Sequence[Tenant], settings: Settings) -> None:
    """Raise `ConfigurationError` if the settings exclude a name that is no target: the one that is meant would run."""
    known = {tenant.name for tenant in listed}
    for name in _exclusions(settings):
        if name not in known:
            raise ConfigurationError(
                f"`excluded` in `rollout` names {name!a}, which is no target; there are {len(known)}: correct or remove"
                " the entry in the stage's settings; nothing was started"
            )


def _until(entry: Mapping[str, Any]) -> date:
    try:
        return date.fromisoformat(entry["until"])
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(
            "each entry of `excluded` in `rollout` needs name, reason and until, a date such as 2026-12-31"
        ) from None


def _named(tenants: Sequence[Tenant], names: tuple[str, ...] | None) -> list[Tenant]:
    if names is None:
        return list(tenants)
    known = {tenant.name for tenant in tenants}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"there is no target {name!a}; there are {len(known)}")
    wanted = set(names)
    return [tenant for tenant in tenants if tenant.name in wanted]


def _failed_in(folder: Folder, listed: Sequence[Tenant]) -> tuple[str, ...]:
    """Return the names of the targets that failed in a rollout, as far as they are still targets."""
    rollout = listing_of(folder)
    if rollout["plan"]:
        raise InvalidRequest(f"rollout {folder.name!a} was a plan, so it migrated nothing")
    if rollout.get("downgrade_to") is not None:
        raise InvalidRequest(
            f"rollout {folder.name!a} reverted revisions, and a retry would upgrade: start it again with its"
            " downgrade_to and migrated_by"
        )
    outcomes = last_of_each(rollout, folder.outcomes())
    numbers = {number for number, outcome in outcomes.items() if outcome.outcome == FAILED}
    failed = {item["name"] for wave in rollout["waves"] for item in folder.items(wave) if item["number"] in numbers}
    if not failed:
        raise InvalidRequest(f"nothing failed in rollout {folder.name!a}")
    names = tuple(tenant.name for tenant in listed if tenant.name in failed)
    if not names:
        raise InvalidRequest(
            f"of {counted(len(failed), 'target')} that failed in rollout {folder.name!a}, none still exists"
        )
    return names


def _migrated_in(folder: Folder, tenants: Sequence[Tenant], revision: str) -> list[Tenant]:
    """Return the targets that a rollout has migrated, each with its former revision and the one that it must be at.

    A target that has moved to another place fails, because the rollout did not migrate that place.
    """
    rollout = listing_of(folder)
    if rollout["plan"]:
        raise InvalidRequest(f"rollout {folder.name!a} was a plan, so it has migrated nothing")
    outcomes = last_of_each(rollout, folder.outcomes())
    then = {
        item["name"]: (item["target"], outcomes[item["number"]].revision)
        for wave in rollout["waves"]
        for item in folder.items(wave)
        if item["number"] in outcomes and outcomes[item["number"]].outcome == MIGRATED
    }
    found = []
    for tenant in tenants:
        if tenant.name not in then:
            continue
        target, at = then[tenant.name]
        taken = replace(tenant, take_back={"revision": revision, "confirm": at})
        if dict(tenant.target) != target:
            problem = f"its secret, database or schema has changed since rollout {folder.name!a} migrated it"
            taken = replace(taken, problem=tenant.problem or problem)
        found.append(taken)
    if not found:
        raise InvalidRequest(f"rollout {folder.name!a} has migrated none of these targets")
    return found


def _plan(folder: Folder, package: str) -> Mapping[str, Any]:
    """Return the listing of a plan.

    Raises:
        InvalidRequest: it is not a plan, or another package was deployed since. Nothing was started.
    """
    plan = listing_of(folder)
    if not plan["plan"] or plan.get("check"):
        raise InvalidRequest(f"rollout {folder.name!a} was no plan, so it cannot be approved")
    if plan.get("package") != package:
        raise InvalidRequest(f"the function was deployed since plan {folder.name!a}: plan again")
    return plan


def _approved(plan: Mapping[str, Any], folder: Folder, listed: Sequence[Tenant]) -> tuple[str, ...] | None:
    """Return the names of the targets that a plan was about, if nothing has changed since.

    Raises:
        InvalidRequest: the targets have changed since. Nothing was started.
    """
    chosen = plan.get("chosen")
    names = None if chosen is None else tuple(chosen)
    now = {tenant.name: dict(tenant.target) for tenant in listed if names is None or tenant.name in names}
    then = {item["name"]: item["target"] for wave in plan["waves"] for item in folder.items(wave)}
    if now != then:
        changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        shown = ", ".join(f"{name!a}" for name in changed[:_NAMES_SHOWN])
        raise InvalidRequest(
            f"{counted(len(changed), 'target')} changed, appeared or disappeared since plan {folder.name!a}: {shown};"
            " plan again"
        )
    return names
