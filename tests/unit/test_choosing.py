"""The targets of a rollout, chosen by the objects that an earlier rollout or plan left in S3."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.fleet.choosing import choose, parse_options
from lambda_migrate.fleet.folder import FAILED, MIGRATED, ROLLOUT
from lambda_migrate.fleet.targets import rules_of
from lambda_migrate.fleet.waves import Tenant
from lambda_migrate.invocation.errors import ConfigurationError, InvalidRequest
from lambda_migrate.invocation.settings import Settings, read_settings
from tests.unit.test_counting import TARGETS, item, listed

if TYPE_CHECKING:
    from lambda_migrate.fleet.choosing import Chosen
    from lambda_migrate.fleet.folder import Folder


@pytest.fixture
def settings() -> Settings:
    return read_settings({"STAGE": "dev", "DB_SECRET_ID": "app/db"})


def earlier(**changes: object) -> Folder:
    """An earlier rollout of t1 to t7, of which the first failed."""
    folder = listed(0)
    folder.bucket.write(folder.key(ROLLOUT), json.dumps({**folder.read(ROLLOUT), **changes}))
    folder.put_outcome(item(1), FAILED, revision="LockTimeout")
    return folder


def chosen(folder: Folder, settings: Settings, *others: str, **given: Any) -> Chosen:  # noqa: ANN401 - JSON
    """Return the targets that are chosen from the seven and some others."""
    names = [*(f"t{number}" for number in range(1, TARGETS + 1)), *others]
    tenants = [Tenant(name, {"schema": name}) for name in names]
    return choose(parse_options(given), tenants, replace(folder, name="now"), settings=settings, package="p")


def test_a_retry_is_about_what_failed(settings: Settings) -> None:
    found = chosen(earlier(), settings, retry_of="r")

    assert [tenant.name for tenant in found.tenants] == ["t1"]


def test_a_rollout_that_took_revisions_back_is_not_retried_because_a_retry_upgrades(settings: Settings) -> None:
    folder = earlier(downgrade_to="a1", migrated_by="before")

    with pytest.raises(InvalidRequest, match="reverted revisions"):
        chosen(folder, settings, retry_of="r")


def test_a_plan_is_not_retried_because_a_retry_upgrades(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="was a plan"):
        chosen(earlier(plan=True), settings, retry_of="r")


PLAN: dict[str, Any] = {
    "plan": True,
    "package": "p",
    "chosen": None,
    "excluded": [{"name": "left-out", "reason": "excluded when the rollout was started"}],
}


def test_an_approved_plan_leaves_out_what_the_plan_has_left_out(settings: Settings) -> None:
    found = chosen(earlier(**PLAN), settings, "left-out", approved="r")

    assert [tenant.name for tenant in found.tenants] == [f"t{number}" for number in range(1, TARGETS + 1)]
    assert found.excluded == {"left-out": "excluded when the rollout was started"}


@pytest.mark.parametrize(
    "canaries,given,expected",
    [
        (["t1", "t2"], {"exclude": ["t1"]}, ["t2"]),
        (["t1"], {"exclude": ["t1"]}, 1),
        ([], {"exclude": ["t1"]}, []),
        (["t1"], {"targets": ["t2", "t3"]}, []),
        (["t1"], {"downgrade_to": "a1", "migrated_by": "r"}, 1),
    ],
)
def test_a_rollout_whose_named_canaries_are_left_out_has_another_canary(
    settings: Settings, canaries: list[str], given: dict[str, Any], expected: object
) -> None:
    stage = replace(settings, rollout={"canaries": canaries}, allow_downgrade=True)
    folder = earlier()
    for number in (2, 3):
        folder.put_outcome(item(number), MIGRATED, revision="b2")

    rules = rules_of(stage, parse_options(given), chosen(folder, stage, **given))

    assert rules.canaries == expected


EXCLUDED = [
    {"name": "t1", "reason": "bad rows", "until": "2099-12-31"},
    {"name": "t22", "reason": "bad rows", "until": "2099-12-31"},
    {"name": "gone", "reason": "bad rows", "until": "2020-12-31"},
]


@pytest.mark.parametrize("given", [{}, {"plan": True}, {"exclude": ["t1"]}])
def test_an_excluded_name_that_is_no_target_is_refused(settings: Settings, given: dict[str, Any]) -> None:
    stage = replace(settings, rollout={"excluded": EXCLUDED})

    with pytest.raises(ConfigurationError, match=r"`excluded` in `rollout` names 't22', which is no target"):
        chosen(earlier(), stage, **given)


@pytest.mark.parametrize("given", [{"targets": ["t2"]}, {"retry_of": "r"}])
def test_a_rollout_of_named_targets_needs_no_correct_exclusions(settings: Settings, given: dict[str, Any]) -> None:
    stage = replace(settings, rollout={"excluded": EXCLUDED[1:]})

    assert len(chosen(earlier(), stage, **given).tenants) == 1


def test_a_target_that_is_new_since_the_plan_is_no_excluded_one(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="1 target changed, appeared or disappeared since plan 'r': 'new'"):
        chosen(earlier(**PLAN), settings, "left-out", "new", approved="r")
