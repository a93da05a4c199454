"""``migrate_on_deploy`` as CloudFormation does it, in the local cloud: migrated, or failed and rolled back."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from alembic.script import ScriptDirectory
from botocore.exceptions import ClientError

from localcloud.clients import client
from tests.support.checkout import ROOT, change_project, copy_checkout, with_tools
from tests.support.trees import Rev, sql, write_revision
from tests.support.workflows import script

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server

# With the tests that bootstrap the same account, one after the other.
pytestmark = pytest.mark.xdist_group("e2e")

DEPLOY, BY_BRANCH = "deploy-backend.yml", "github.ref_name == 'main' && 'prod' || 'dev'"
STACK = "template-saas-api-migrate-ondeploy"
FUNCTION = "template-saas-api-migrate-lambda-ondeploy"
SECRET = "ondeploy/database"

GOOD = Rev("deploy00good", upgrade=sql("CREATE TABLE next_release (id integer)"), description="Add a table")
BAD = Rev("deploy000bad", upgrade=sql("SELECT 1 / 0"), description="Raise")


@pytest.mark.stress
def test_a_deployment_migrates_and_a_failed_migration_rolls_it_back_with_the_reason(
    tmp_path: Path, emulator: Emulator, postgres_server: Server, database: Database
) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    stage = {
        "account": "000000000000",
        "region": emulator.region,
        "runtime": "local",
        "database": {"secret": SECRET, "ca_bundle": str(postgres_server.ca)},
        "migrate_on_deploy": True,
    }
    change_project(checkout, stages={"ondeploy": stage})
    client(emulator, "secretsmanager").create_secret(Name=SECRET, SecretString=json.dumps(database.secret))
    formation = client(emulator, "cloudformation")

    def cdk(*command: str) -> subprocess.CompletedProcess[str]:
        environment = with_tools(emulator.environment())
        return subprocess.run(
            ["cdk", *command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )

    def deploy() -> subprocess.CompletedProcess[str]:
        return cdk("deploy", "--context", "stage=ondeploy", "--require-approval", "never")

    def deploy_as_the_workflow(job: Path) -> subprocess.CompletedProcess[str]:
        """Build in the checkout, and deploy the archive of the assembly in a checkout without a build."""
        base, stage = with_tools(emulator.environment()), {BY_BRANCH: "ondeploy"}
        base["RUNNER_TEMP"] = str(job / "temporary")
        built = script(DEPLOY, "build", "Build the package").run(checkout, base, stage)
        assert built.returncode == 0, built.stderr
        for name in ("infra", "cdk.json", "node_modules"):
            (job / name).symlink_to(checkout / name)
        (job / "temporary" / "assembly").mkdir(parents=True)
        (checkout / "assembly.tar").rename(job / "temporary" / "assembly" / "assembly.tar")
        # The assembly is complete: the other job's checkout has neither the package nor the output of the synthesis.
        for made in ("cdk.out", "package"):
            shutil.rmtree(checkout / ".local" / made)
        done = script(DEPLOY, "deploy", "Check the assembly").run(job, base, stage)
        assert (done.returncode, done.stderr) == (0, "")
        return script(DEPLOY, "deploy", "Deploy").run(job, base, stage)

    def status() -> Any:  # noqa: ANN401 - JSON
        response = client(emulator, "lambda").invoke(FunctionName=FUNCTION, Payload=json.dumps({"action": "status"}))
        return json.load(response["Payload"])

    try:
        formation.describe_stacks(StackName="CDKToolkit")
    except ClientError:
        assert cdk("bootstrap", f"aws://000000000000/{emulator.region}", "--app", "").returncode == 0

    (tmp_path / "job").mkdir()
    done = deploy_as_the_workflow(tmp_path / "job")
    assert done.returncode == 0, done.stderr
    (head,) = ScriptDirectory(str(ROOT / "back" / "alembic")).get_heads()
    assert status()["revision"] == head

    versions = checkout / "back" / "alembic" / "versions"
    write_revision(versions, GOOD, head)
    write_revision(versions, BAD, GOOD.id)
    done = deploy()

    assert done.returncode != 0
    assert "division by zero" in done.stdout + done.stderr
    (stack,) = formation.describe_stacks(StackName=STACK)["Stacks"]
    # The old version was invoked again, over a database that is newer than it, and left it alone.
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert (status()["revision"], status()["ahead"]) == (GOOD.id, True)
