"""The workflows' permissions, order and environments, and the check of the assembly before it is deployed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.checkout import ROOT
from tests.support.workflows import (
    BY_BRANCH,
    CI,
    DEPLOY,
    FILES,
    PRODUCTION,
    STRESS,
    load,
    script,
)

if TYPE_CHECKING:
    from pathlib import Path


JOBS = [(file.name, name) for file in FILES for name in load(file.name)["jobs"]]
STEPS = [
    (f"{workflow}: {job}: {step.get('name', step.get('uses'))}", step)
    for workflow, job in JOBS
    for step in load(workflow)["jobs"][job].get("steps", [])
]
each_step = pytest.mark.parametrize("step", [step for _, step in STEPS], ids=[name for name, _ in STEPS])


def test_these_are_the_workflows() -> None:
    assert [file.name for file in FILES] == [CI, DEPLOY, PRODUCTION, STRESS]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_action_is_pinned_by_its_commit_with_its_version_in_a_comment(file: Path) -> None:
    used = re.findall(r"^ *(?:- )?uses: (?!\./)(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)

    assert used
    assert [use for use in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


def test_an_action_has_the_same_commit_everywhere() -> None:
    used = {step["uses"] for _, step in STEPS if "uses" in step}

    assert len(used) == len({use.partition("@")[0] for use in used})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_workflow_as_a_whole_may_nothing(file: Path) -> None:
    assert load(file.name)["permissions"] == {}


@pytest.mark.parametrize("workflow,job", JOBS)
def test_a_job_may_take_a_role_only_where_it_takes_one_and_then_in_an_environment(workflow: str, job: str) -> None:
    content = load(workflow)["jobs"][job]
    takes_a_role = any("configure-aws-credentials@" in step.get("uses", "") for step in content.get("steps", []))
    attests = any("attest-build-provenance@" in step.get("uses", "") for step in content.get("steps", []))
    permissions = content["permissions"]

    assert permissions.keys() <= {"contents", "id-token"} | ({"attestations"} if attests else set())
    assert permissions.get("contents", "read") == "read"
    assert (permissions.get("id-token") == "write") is (takes_a_role or attests)
    assert takes_a_role is ("environment" in content)
    # A job that signs runs no code: neither of this project nor of a package.
    assert not attests or all("uses" in step for step in content["steps"])


@each_step
def test_a_step_keeps_no_token_and_has_no_secret_and_no_key(step: dict[str, Any]) -> None:
    text = json.dumps(step)

    assert "secrets." not in text
    if "checkout@" in step.get("uses", ""):
        assert {**step["with"], "fetch-depth": 0} == {"persist-credentials": False, "fetch-depth": 0}
    if "configure-aws-credentials@" in step.get("uses", ""):
        assert step["with"].keys() == {"role-to-assume", "aws-region"}
        assert all(re.fullmatch(r"\$\{\{ vars\.\w+ \}\}", value) for value in step["with"].values())


@each_step
def test_no_untrusted_text_becomes_part_of_a_script(step: dict[str, Any]) -> None:
    assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("workflow,job", JOBS)
def test_a_job_ends_by_itself(workflow: str, job: str) -> None:
    content = load(workflow)["jobs"][job]

    assert "uses" in content or content["timeout-minutes"] <= (180 if workflow == STRESS else 65)


def test_what_a_pull_request_does_not_test_is_tested_every_week() -> None:
    content = load(STRESS)

    assert content["on"]["schedule"] == [{"cron": "17 3 * * 0"}]
    assert [step["run"] for step in content["jobs"]["stress"]["steps"] if "run" in step] == ["make stress"]


def test_packages_are_installed_before_there_are_credentials() -> None:
    for workflow, job in JOBS:
        steps = [str(step.get("uses", step.get("run"))) for step in load(workflow)["jobs"][job].get("steps", [])]
        credentials = [number for number, step in enumerate(steps) if "configure-aws-credentials@" in step]
        installing = [number for number, step in enumerate(steps) if step.startswith(("make ", "npm "))]
        assert not credentials or max(installing) < credentials[0]


def test_a_job_that_may_request_a_role_builds_nothing() -> None:
    """Such a job installs wheels and packages of npm by their hashes, and runs the commands in them."""
    for workflow, job in JOBS:
        content = load(workflow)["jobs"][job]
        if "id-token" not in content["permissions"]:
            continue
        installing = {step["run"] for step in content.get("steps", []) if re.match(r"make|npm", step.get("run", ""))}
        assert installing <= {"make cli", "npm ci --omit=dev --omit=optional"}
        scripts = "".join(step.get("run", "") for step in content.get("steps", []))
        assert not re.search(r"cdk synth|infra\.package|\buv\b|\bpip\b|app\.py", scripts)
    assert "ignore-scripts=true" in (ROOT / ".npmrc").read_text(encoding="utf-8").splitlines()
    installed = subprocess.run(
        ["make", "cli", "--dry-run", "--always-make"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"(?:uv pip|-m pip) .*", installed)
    assert all(
        re.search("--only-binary :all:|--no-build", line) for line in re.findall(r"(?:uv pip|-m pip) .*", installed)
    )
    action = yaml.safe_load((ROOT / "action" / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"]
    commands = re.findall(r"\bpip\b.* install .*", "".join(step["run"] for step in action))
    assert commands
    assert all("--require-hashes --only-binary :all:" in command for command in commands)


def test_the_assembly_is_checked_before_there_are_credentials_and_deployed_as_it_is() -> None:
    steps = [str(step.get("uses", step.get("run"))) for step in load(DEPLOY)["jobs"]["deploy"]["steps"]]
    fetched, checked, taken, deployed = (
        next(number for number, step in enumerate(steps) if part in step)
        for part in ("download-artifact@", "infra.assembly", "configure-aws-credentials@", "cdk deploy")
    )

    assert fetched < checked < taken < deployed
    # What the other job made takes the place of no file of this one.
    assert load(DEPLOY)["jobs"]["deploy"]["steps"][fetched]["with"]["path"] == "${{ runner.temp }}/assembly"
    assert 'export CDK_APP=".local/cdk.out/$STAGE"' in steps[deployed]
    assert '--output ".local/cdk.out/$STAGE"' in script(DEPLOY, "build", "Build the package").text


def test_a_later_job_takes_what_the_build_made_also_if_the_build_is_not_repeated() -> None:
    """GitHub keeps a build's artifacts and outputs if only the failed jobs are run again."""
    jobs = load(DEPLOY)["jobs"]

    assert jobs["build"]["outputs"] == {"attempt": "${{ github.run_attempt }}"}
    uploaded = {step["with"]["name"] for step in jobs["build"]["steps"] if "upload-artifact@" in step.get("uses", "")}
    downloaded = {
        step["with"]["name"]
        for job in ("deploy", "provenance")
        for step in jobs[job]["steps"]
        if "download-artifact@" in step.get("uses", "")
    }
    assert {name.replace("github.run_attempt", "needs.build.outputs.attempt") for name in uploaded} == downloaded


@pytest.fixture
def assembly(tmp_path: Path) -> Path:
    """A folder like that of `cdk synth`, with an archive and an image."""
    files = {"a": {"source": {"path": "asset.a", "packaging": "zip"}}}
    images = {
        "b": {"source": {"directory": "asset.b", "dockerBuildArgs": {"PYTHON": "3.13"}, "platform": "linux/arm64"}}
    }
    artifacts = {
        "s.assets": {"type": "cdk:asset-manifest", "properties": {"file": "s.assets.json"}},
        "s": {"type": "aws:cloudformation:stack", "properties": {"templateFile": "s.template.json"}},
    }
    for name, content in (
        ("manifest.json", {"artifacts": artifacts}),
        ("s.assets.json", {"files": files, "dockerImages": images}),
    ):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def checked(assembly: Path) -> subprocess.CompletedProcess[str]:
    # As the workflow does, with a Python that has no packages.
    command = [sys.executable, "-S", "-m", "infra.assembly", str(assembly)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_assembly_of_this_project_is_deployed(assembly: Path) -> None:
    done = checked(assembly)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "file,keys,value,message",
    [
        ("s.assets.json", ("files", "a", "source", "executable"), ["sh", "-c", "env"], "executable"),
        ("s.assets.json", ("dockerImages", "b", "source", "executable"), ["env"], "executable"),
        ("s.assets.json", ("dockerImages", "b", "source", "dockerBuildSecrets"), {"k": "env=K"}, "dockerBuildSecrets"),
        ("s.assets.json", ("files", "a", "source", "path"), "/proc/self/environ", "outside of the assembly"),
        ("s.assets.json", ("dockerImages", "b", "source", "directory"), "../..", "outside of the assembly"),
        ("manifest.json", ("artifacts", "s.assets", "properties", "file"), "../assets.json", "outside of the assembly"),
        ("manifest.json", ("artifacts", "n"), {"type": "cdk:cloud-assembly"}, "cdk:cloud-assembly"),
        ("manifest.json", ("artifacts", "s"), {}, "type"),
    ],
)
def test_an_assembly_that_could_run_a_command_is_refused(
    assembly: Path, file: str, keys: tuple[str, ...], value: object, message: str
) -> None:
    content = json.loads((assembly / file).read_text(encoding="utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (assembly / file).write_text(json.dumps(content), encoding="utf-8")

    done = checked(assembly)

    assert done.returncode == 1
    assert done.stderr.startswith("error: refused to deploy: ")
    assert message in done.stderr


def test_a_link_out_of_the_assembly_is_refused(assembly: Path) -> None:
    (assembly / "asset.a").symlink_to("/proc/self")

    done = checked(assembly)

    assert (done.returncode, "symbolic link" in done.stderr) == (1, True)


def test_develop_is_deployed_to_dev_and_main_to_prod_in_their_environments() -> None:
    content = load(DEPLOY)

    assert content["on"] == {"push": {"branches": ["develop", "main"]}}
    assert content["env"] == {"STAGE": f"${{{{ {BY_BRANCH} }}}}"}
    assert {content["jobs"][job]["environment"] for job in ("deploy", "migrate")} == {f"${{{{ {BY_BRANCH} }}}}"}


def test_a_stage_is_changed_by_one_run_at_a_time_which_nothing_cancels() -> None:
    deploying, production = load(DEPLOY)["concurrency"], load(PRODUCTION)["concurrency"]

    assert deploying == {"group": f"stage-${{{{ {BY_BRANCH} }}}}", "cancel-in-progress": False}
    assert production == {"group": "stage-prod", "cancel-in-progress": False}


def test_nothing_is_deployed_untested_and_nothing_migrated_undeployed() -> None:
    jobs = load(DEPLOY)["jobs"]

    assert jobs["test"]["uses"] == f"./.github/workflows/{CI}"
    assert [jobs[job]["needs"] for job in ("build", "deploy", "migrate")] == ["test", "build", "deploy"]
    assert [step["run"] for step in load(CI)["jobs"]["test"]["steps"] if "run" in step] == [
        "make lint",
        '.venv/bin/migrate review --since "$SINCE" --format github',
        "make test",
    ]


def test_a_deployed_commit_is_tested_once() -> None:
    triggers = load(CI)["on"]

    assert triggers["push"]["branches-ignore"] == load(DEPLOY)["on"]["push"]["branches"]
    assert triggers.keys() == {"push", "pull_request", "workflow_call"}


def test_production_is_migrated_after_confirmation_plan_and_approval() -> None:
    content = load(PRODUCTION)
    jobs = content["jobs"]

    assert content["on"].keys() == {"workflow_dispatch"}
    assert (jobs["plan"]["needs"], jobs["upgrade"]["needs"]) == ("confirm", "plan")
    assert jobs["plan"]["environment"] == jobs["upgrade"]["environment"] == content["env"]["STAGE"] == "prod"
    assert jobs["upgrade"]["if"] == "needs.plan.outputs.revision != ''"
    assert (jobs["rollout"]["needs"], jobs["rollout"]["environment"]) == ("plan", "prod")
    assert jobs["rollout"]["if"] == "needs.plan.outputs.behind != ''"


def test_no_step_is_allowed_to_fail() -> None:
    assert "continue-on-error" not in "".join(file.read_text(encoding="utf-8") for file in FILES)
