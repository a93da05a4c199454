"""The workflows below .github as data, and their scripts, run as GitHub runs them."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))

# What a script sees of the test's own surroundings: nothing by which it could find somebody's AWS.
_KEPT = ("PATH", "HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED")

# What GitHub makes of `shell: bash`.
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")


def load(name: str) -> dict[str, Any]:
    """A workflow's content."""
    content = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    # YAML 1.1 takes `on` for a truth.
    content["on"] = content.pop(True)
    return dict(content)


@dataclass(frozen=True)
class Script:
    """The ``run:`` of a step, with the variables that the workflow, the job and the step set."""

    text: str
    variables: Mapping[str, str]

    def environment(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the step's variables. ``expressions`` gives the value of each whole expression."""
        return {name: _evaluated(value, values) for name, value in self.variables.items()}

    def run(
        self, folder: Path, base: Mapping[str, str], values: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it in a folder, with these variables below its own."""
        environment = {**base, **self.environment(values or {})}
        return subprocess.run(
            [*SHELL, self.text], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )


def script(workflow: str, job: str, step: str) -> Script:
    """The script of the one step that has this name."""
    content = load(workflow)
    assert content["defaults"] == {"run": {"shell": "bash"}}, "run as SHELL says"
    found = content["jobs"][job]
    [wanted] = [each for each in found["steps"] if each.get("name") == step]
    variables = {**content.get("env", {}), **found.get("env", {}), **wanted.get("env", {})}
    return Script(wanted["run"], variables)


def surroundings_of_a_script() -> dict[str, str]:
    """The variables that any pipeline has."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def surroundings_of_a_step(folder: Path) -> dict[str, str]:
    """Return those variables and GitHub Actions' own, with the files that a step writes."""
    files = {name: str(folder / name.lower()) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    return {**surroundings_of_a_script(), "GITHUB_ACTIONS": "true", **files}


def _evaluated(value: str, values: Mapping[str, str]) -> str:
    found = re.fullmatch(r"\$\{\{ (.*) \}\}", value)
    return values[found[1]] if found else value


CI, DEPLOY, PRODUCTION, STRESS = "ci.yml", "deploy-backend.yml", "migrate-production.yml", "stress.yml"


BY_BRANCH = "github.ref_name == 'main' && 'prod' || 'dev'"
