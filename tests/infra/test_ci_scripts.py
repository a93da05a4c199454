"""The scripts of the workflows and the examples of docs/ci.md do what they say, with a stub of AWS."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from infra.settings.github import GithubSettings
from tests.support import rollout_stub
from tests.support.aws_stub import REQUEST_ID, Reply, Stub, failure, result, serve
from tests.support.checkout import ROOT, copy_checkout
from tests.support.reports import report
from tests.support.samples import sampled
from tests.support.workflows import (
    BY_BRANCH,
    CI,
    DEPLOY,
    FILES,
    PRODUCTION,
    SHELL,
    load,
    script,
    surroundings_of_a_script,
    surroundings_of_a_step,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rollout_stub import RolloutStub


PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


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


@pytest.mark.stress
@pytest.mark.parametrize(
    "workflow,job",
    [(DEPLOY, "build"), (DEPLOY, "migrate"), (PRODUCTION, "plan")],
)
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


UPGRADES: dict[str, tuple[str, dict[str, str]]] = {
    DEPLOY: ("migrate", {BY_BRANCH: "prod"}),
    PRODUCTION: ("upgrade", {"needs.plan.outputs.revision": "bbbb"}),
}


@pytest.mark.parametrize("workflow", sampled(UPGRADES, {DEPLOY}))
def test_a_migration_that_fails_fails_the_pipeline(
    checkout: Path, aws: Stub, surroundings: dict[str, str], workflow: str
) -> None:
    job, values = UPGRADES[workflow]
    aws.replies = [failure("MigrationFailed", "revision bbbb failed")]

    done = script(workflow, job, "Upgrade").run(checkout, surroundings, values)

    assert done.returncode == 1
    assert "::error title=" in done.stderr
    assert "MigrationFailed" in summary(surroundings)


@pytest.mark.parametrize("workflow", sampled(UPGRADES, {PRODUCTION}))
def test_an_incomplete_migration_is_gone_on_with(
    checkout: Path, aws: Stub, surroundings: dict[str, str], workflow: str
) -> None:
    job, values = UPGRADES[workflow]
    aws.replies = [failure("MigrationIncomplete"), Reply(result())]

    done = script(workflow, job, "Upgrade").run(checkout, surroundings, values)

    assert done.returncode == 0, done.stderr
    assert len(aws.events) == 2
    assert {function.rpartition(":")[2] for function in aws.functions} == {"template-saas-api-migrate-lambda-prod"}


@pytest.mark.stress
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


@pytest.mark.parametrize(
    "workflow,job,status,code",
    [
        (DEPLOY, "migrate", "failed", 1),
        pytest.param(PRODUCTION, "rollout", "stopped", 4, marks=pytest.mark.stress),
        pytest.param(DEPLOY, "migrate", "succeeded", 0, marks=pytest.mark.stress),
        pytest.param(DEPLOY, "migrate", "stopped", 4, marks=pytest.mark.stress),
        pytest.param(PRODUCTION, "rollout", "succeeded", 0, marks=pytest.mark.stress),
        pytest.param(PRODUCTION, "rollout", "failed", 1, marks=pytest.mark.stress),
    ],
)
def test_a_rollout_fails_the_pipeline_where_it_fails_and_leaves_its_page(
    checkout: Path, fleet: RolloutStub, beside_a_fleet: dict[str, str], workflow: str, job: str, status: str, code: int
) -> None:
    fleet.leaves(report(2, left=3, status=status))

    done = script(workflow, job, "Roll out").run(checkout, beside_a_fleet, {BY_BRANCH: "prod"})

    assert done.returncode == code, done.stderr
    assert [text for _, text in fleet.started] == [{}]
    assert (checkout / "rollout.html").read_text(encoding="utf-8") == "<!doctype html>"
    assert "| tenant-00001 | LockTimeout |" in summary(beside_a_fleet)


@pytest.mark.parametrize("behind,failed,text", [(6, 1, "7"), pytest.param(0, 0, "", marks=pytest.mark.stress)])
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


@pytest.mark.stress
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


@pytest.mark.stress
def test_a_plan_of_nothing_asks_for_no_approval(
    checkout: Path, aws: Stub, surroundings: dict[str, str], tmp_path: Path
) -> None:
    aws.replies = [Reply(plan_of())]

    assert PLAN.run(checkout, surroundings).returncode == 0
    assert (tmp_path / "github_output").read_text(encoding="utf-8") == "revision=\n"


@pytest.mark.stress
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


@pytest.mark.stress
def test_the_summary_has_the_person_the_time_the_revisions_and_the_request(
    checkout: Path, surroundings: dict[str, str]
) -> None:
    values = {"needs.plan.outputs.revision": "bbbb", "github.triggering_actor": "mona", "github.sha": "c0ffee"}
    for step in ("Record the requester", "Upgrade"):
        assert script(PRODUCTION, "upgrade", step).run(checkout, surroundings, values).returncode == 0

    facts = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", summary(surroundings), re.MULTILINE))

    assert facts["requested by"] == "mona"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", facts["at"])
    assert (facts["approved up to"], facts["commit"]) == ("bbbb", "c0ffee")
    assert (facts["from"], facts["to"], facts["request"]) == ("aaaa", "bbbb", REQUEST_ID)


def shown(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)


def commands_of(snippet: dict[str, Any]) -> list[str]:
    """The commands of a buildspec, or of a job of GitLab's."""
    if "phases" in snippet:
        return [command for phase in snippet["phases"].values() for command in phase["commands"]]
    [job] = snippet.values()
    return [str(command) for command in job["script"]]


PIPELINES = [content for content in map(yaml.safe_load, shown("yaml")) if "jobs" not in content]


ANSWERS = {"ok": (Reply(result()), 0), "failed": (failure("MigrationFailed"), 1)}


@pytest.mark.parametrize("snippet", sampled(PIPELINES, PIPELINES[:1]), ids=["CodeBuild", "GitLab"])
@pytest.mark.parametrize("answer", sampled(ANSWERS, {"failed"}))
def test_another_pipelines_commands_migrate_and_fail_where_the_migration_does(
    checkout: Path, aws: Stub, tmp_path: Path, snippet: dict[str, Any], answer: str
) -> None:
    reply, code = ANSWERS[answer]
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
