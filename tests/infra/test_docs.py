"""docs/stages.md, docs/operations.md and docs/errors.md match the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic_core import PydanticUndefined

from infra import queries
from infra.settings.database import DatabaseSettings
from infra.settings.github import GithubSettings
from infra.settings.network import NetworkSettings
from infra.settings.rollout import TargetsAllowed
from infra.settings.runs import LongRunSettings, SnapshotSettings
from infra.stages import Project, Stage, read_project
from lambda_migrate.invocation import errors as contract_errors

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

DOCS = Path(__file__).resolve().parents[2] / "docs"
STAGES = (DOCS / "stages.md").read_text(encoding="utf-8")
ERRORS = (DOCS / "errors.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")

MODELS: dict[str, type[BaseModel]] = {
    "The project": Project,
    "A stage": Stage,
    "database": DatabaseSettings,
    "network": NetworkSettings,
    "long_runs": LongRunSettings,
    "snapshot": SnapshotSettings,
    "targets_allowed": TargetsAllowed,
    "github": GithubSettings,
}


def section(text: str, title: str) -> str:
    """Return the text below a heading, up to the next one."""
    return re.split(r"^#+ .*$", re.split(rf"^#+ {re.escape(title)}$", text, flags=re.MULTILINE)[1], flags=re.MULTILINE)[
        0
    ]


def default_of(field: FieldInfo) -> str:
    if field.default is not PydanticUndefined:
        value = field.default
        return "" if value in (None, ()) else f"`{json.dumps(value) if isinstance(value, bool) else value}`"
    return "required" if field.is_required() else ""


@pytest.mark.parametrize("title", MODELS)
def test_the_tables_have_every_setting_with_its_default_and_description(title: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", section(STAGES, title), flags=re.MULTILINE)

    assert rows == [
        (field.alias or name, default_of(field), f"{str(field.description).removesuffix('.')}.")
        for name, field in MODELS[title].model_fields.items()
    ]


def test_the_examples_are_fine_and_the_minimal_one_has_five_lines() -> None:
    minimal, *_, full = re.findall(r"```json\n(.*?)```", STAGES, flags=re.DOTALL)

    assert len(minimal.strip().splitlines()) == 5
    read_project({"stages": json.loads(f"{{{minimal}}}")})
    project = json.loads(full)
    read_project(project)
    (stage,) = project["stages"].values()
    # Whatever can be set is set there, but for what the local cloud alone needs.
    # A bootstrap of the stage's own brings its boundary along.
    # And rollout excludes a snapshot.
    assert stage.keys() | {"permissions_boundary", "snapshot"} == Stage.model_fields.keys()


def test_the_runbook_has_every_error_once() -> None:
    errors = {each.__name__ for each in contract_errors.MigrationError.__subclasses__()} | {"MigrationError"}
    headings = re.findall(r"^## (\w+)$", ERRORS, flags=re.MULTILINE)

    assert sorted(headings) == sorted(errors)
    for name in errors:
        assert re.findall(r"^- \*\*(\w+):\*\* \S", section(ERRORS, name), flags=re.MULTILINE) == [
            "Retry",
            "Cure",
            "Run",
        ]


def test_every_saved_query_and_alarm_is_explained() -> None:
    for query in queries.SAVED:
        assert f"**{query.title}**" in OPERATIONS
    alarms = ["failed-run", "close-to-timeout", "throttled", "long-lock-wait", "failed-destination"]
    for alarm in [*alarms, *(f"{how}-rollout" for how in ("failed", "aborted", "timed-out"))]:
        assert f"`-{alarm}`" in OPERATIONS
