"""The state machine's template and permissions, and the settings in docs/rollouts.md."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from pydantic_core import PydanticUndefined

from infra.errors import StageError
from infra.names import Names
from infra.settings.rollout import ExcludedTarget, RolloutSettings, RolloutTarget, SecretTag
from infra.stages import Stage, read_project
from lambda_migrate.fleet.waves import Rules
from lambda_migrate.invocation.request import ROLLOUT_FIELDS, ROLLOUT_INPUT
from tests.infra.synthesis import ACCOUNT, REGION, Stack, as_list, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

pytestmark = pytest.mark.xdist_group("rollout-template")

DATABASE = {"secret": "template-saas/api/dev/database"}
QUERY = "SELECT secret_id FROM tenants"
GIVEN: dict[str, dict[str, Any]] = {
    "alone": {},
    "own": {"rollout": {}},
    "query": {"rollout": {"query": QUERY, "secret_prefix": "tenants/", "concurrency": 50, "per_server": 8}},
    "prefix": {"rollout": {"secret_prefix": "tenants/"}},
    "tag": {"rollout": {"secret_tag": {"key": "tenant-of", "value": "api"}}},
    "github": {"rollout": {}, "github": {"repository": "acme/app", "environment": "production"}},
    "list": {"rollout": {"targets": [{"secret_id": "tenants/a"}, {"schema": "b"}]}},
    "here": {"rollout": {"concurrency": 3}, "runtime": "local"},
    "gates": {
        "rollout": {
            "query": QUERY,
            "between_waves": "approval",
            "approval_hours": 2,
            "soak_s": 600,
            "soak_alarm": "slow",
        }
    },
}
STAGES: dict[str, tuple[Names, dict[str, Any]]] = {
    name: (Names("template-saas", "api", name), {"account": ACCOUNT, "region": REGION, "database": DATABASE, **given})
    for name, given in GIVEN.items()
}
SECRETS = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret"


def text_of(value: Any, stack: Stack) -> Any:  # noqa: ANN401 - JSON
    ids = {f"{name}{part}": f"<{name}{part}>" for name in stack.resources for part in ("", ".Arn")}
    return resolved(value, {"AWS::StackId": "<stack>", **ids})


def definition(stack: Stack) -> Any:  # noqa: ANN401 - JSON
    return json.loads(text_of(stack.machine["DefinitionString"], stack))


def states(machine: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    """Every state of a machine, those of its Map included."""
    for name, state in machine["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])


def machine_may(stack: Stack) -> dict[str, list[str]]:
    """Return each action that the machine may do, with its resources."""
    role = stack.machine["RoleArn"]["Fn::GetAtt"][0]
    return {
        action: sorted(text_of(as_list(statement["Resource"]), stack))
        for statement in stack.statements_of(role)
        for action in as_list(statement["Action"])
        if statement["Sid"] not in {"DeliverTheLog", "Trace", "WriteResults"}
    }


INVOKE = ":states:::lambda:invoke"


def may_with_versions(function: str) -> dict[str, list[str]]:
    """The permissions of each state machine on the function and its versions."""
    return {
        "lambda:InvokeFunction": [f"<{function}.Arn>", f"<{function}.Arn>:*"],
        "lambda:ListVersionsByFunction": [f"<{function}.Arn>"],
        # Not the function itself.
        "lambda:DeleteFunction": [f"<{function}.Arn>:*"],
    }


# --- the machine ---


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_machine_of_the_contracts_name_logged_and_traced(
    stacks: dict[str, Stack], stage: str
) -> None:
    machine = stacks[stage].machine

    assert machine["StateMachineName"] == f"template-saas-api-migrate-{stage}"
    assert machine["TracingConfiguration"] == {"Enabled": True}
    assert machine["LoggingConfiguration"]["Level"] == "ALL"
    assert "StateMachineArn" in stacks[stage].outputs


def test_without_rollout_there_is_no_bucket_and_only_the_function_to_invoke(stacks: dict[str, Stack]) -> None:
    alone = stacks["alone"]

    assert alone.all("AWS::S3::Bucket") == []
    assert not {"ROLLOUT", "ROLLOUT_BUCKET", "SERVER_CONCURRENCY"} & alone.variables.keys()
    assert machine_may(alone) == may_with_versions(alone.function_name)
    (event,) = [
        state["Parameters"]["Payload"]
        for _, state in states(definition(alone))
        if state.get("Resource", "").endswith(INVOKE)
    ]
    assert event == {"action": "upgrade"}


def test_without_rollout_an_input_that_asks_for_something_else_is_refused(stacks: dict[str, Stack]) -> None:
    machine = definition(stacks["alone"])
    first = machine["States"][machine["StartAt"]]
    [choice] = first["Choices"]

    assert {each["Variable"].removeprefix("$.") for each in choice["Or"]} == set(ROLLOUT_INPUT)
    assert all(each["IsPresent"] for each in choice["Or"])
    refused = machine["States"][choice["Next"]]
    assert (refused["Type"], refused["Error"]) == ("Fail", "InvalidRequest")
    assert first["Default"] == "Begin"


@pytest.mark.parametrize("stage", ["alone", "query"])
def test_temporary_errors_are_retried_with_jitter(stacks: dict[str, Stack], stage: str) -> None:
    migrate = dict(states(definition(stacks[stage])))["Migrate"]
    tried_again = {error for retry in migrate["Retry"] for error in retry["ErrorEquals"]}

    assert {"MigrationLocked", "LockTimeout", "DatabaseUnavailable", "Lambda.TooManyRequestsException"} <= tried_again
    assert not {"MigrationFailed", "MigrationIncomplete", "States.ALL", "States.TaskFailed"} & tried_again
    assert {retry["JitterStrategy"] for retry in migrate["Retry"]} == {"FULL"}
    # As the Amazon States Language demands.
    assert all(retry["IntervalSeconds"] < retry["MaxDelaySeconds"] for retry in migrate["Retry"])
    assert migrate["TimeoutSeconds"] > 900


@pytest.mark.parametrize("stage", ["alone", "query"])
def test_all_that_belongs_to_one_execution_runs_the_version_that_it_began_with(
    stacks: dict[str, Stack], stage: str
) -> None:
    stack = stacks[stage]
    (version,) = stack.names("AWS::Lambda::Version")
    invoked = [
        state["Parameters"]["FunctionName"]
        for _, state in states(definition(stack))
        if state.get("Resource", "").endswith(INVOKE)
    ]

    assert set(invoked) == {f"<{version}>"}
    # CloudFormation leaves it there for executions that are still running.
    assert stack.resource(version)["DeletionPolicy"] == "Retain"
    # And nobody tries an asynchronous run of it again.
    configured = {str(each["Properties"]["Qualifier"]) for each in stack.all("AWS::Lambda::EventInvokeConfig")}
    assert configured == {"$LATEST", str({"Fn::GetAtt": [version, "Version"]})}
    assert {each["Properties"]["MaximumRetryAttempts"] for each in stack.all("AWS::Lambda::EventInvokeConfig")} == {0}


@pytest.mark.parametrize("stage", ["alone", "query"])
def test_old_versions_are_pruned_which_is_no_reason_to_fail(stacks: dict[str, Stack], stage: str) -> None:
    machine = definition(stacks[stage])
    prune = machine["States"]["Prune old versions"]
    (branch,) = prune["Branches"]
    each = branch["States"]["For each version"]["ItemProcessor"]["States"]
    (old,) = each["Is it an old one?"]["Choices"]

    assert prune["Catch"] == [{"ErrorEquals": ["States.ALL"], "Next": prune["Next"], "ResultPath": None}]
    assert "$LATEST" in json.dumps(old)
    assert "10" in branch["States"]["For each version"]["ItemSelector"]["at_least.$"]
    assert each["Delete it"]["Parameters"] == {
        "FunctionName": f"<{stacks[stage].function_name}.Arn>",
        "Qualifier.$": "$.version",
    }


def test_the_function_knows_every_field_that_the_machine_sends(stacks: dict[str, Stack]) -> None:
    given: dict[str, set[str]] = {}
    for name, state in states(definition(stacks["gates"])):
        if "lambda" in state.get("Resource", ""):
            event = state["Parameters"]["Payload"]
            action = event.get("action", "upgrade")  # a part's is in its input
            given.setdefault(action, set()).update(field.removesuffix(".$") for field in event["rollout"])
            assert event.keys() <= {"action", "action.$", "target.$", "rollout"}, name

    # A part's action may also be one of these, with the same fields.
    assert given == {
        action: {field.rstrip("?") for field in fields}
        for action, fields in ROLLOUT_FIELDS.items()
        if action not in {"status", "downgrade", "dangers"}
    }
    assert ROLLOUT_FIELDS["status"] == ROLLOUT_FIELDS["downgrade"] == ROLLOUT_FIELDS["upgrade"]


def test_a_wave_waits_for_its_pause_and_its_approval_and_a_stop_or_an_alarm_ends_both(
    stacks: dict[str, Stack],
) -> None:
    machine = definition(stacks["gates"])["States"]

    wait = machine["Wait for the approval"]
    assert wait["Resource"].endswith(":lambda:invoke.waitForTaskToken")
    assert (wait["TimeoutSeconds"], wait["Parameters"]["Payload"]["rollout"]["token.$"]) == (7200, "$$.Task.Token")
    assert {each["Next"] for each in wait["Catch"]} == {"Nobody approved it", "Not approved", "Write the report"}
    # After the approval, and after each minute of a pause, a stop is looked for before anything begins.
    assert wait["Next"] == "Look whether it was halted before the approval"
    assert machine["Pause"]["Next"] == "Look whether it was halted meanwhile"
    assert machine["Look at the alarm"]["Parameters"]["AlarmNames"] == ["slow"]
    assert {each["Next"] for each in machine["Is the alarm off?"]["Choices"]} == {"Count the look"}
    assert machine["Is the alarm off?"]["Default"] == "Stop for the alarm"
    assert machine_may(stacks["gates"])["cloudwatch:DescribeAlarms"] == ["*"]
    # A machine without gates has none of these states.
    assert not {"Pause", "Wait for the approval", "Look at the alarm"} & definition(stacks["query"])["States"].keys()


def test_a_redriven_rollout_that_another_one_followed_has_no_new_targets_and_is_reported(
    stacks: dict[str, Stack],
) -> None:
    machine = definition(stacks["query"])["States"]

    only = machine[machine["List the new targets"]["Next"]]

    [choice] = only["Choices"]
    assert (choice["Variable"], choice["IsPresent"]) == ("$.listed.answer.last", True)
    assert (choice["Next"], only["Default"]) == ("Begin with the new ones", "Write the report")


def test_a_wave_is_read_from_the_bucket_and_as_wide_as_the_listing_says(stacks: dict[str, Stack]) -> None:
    wave = dict(states(definition(stacks["query"])))["Migrate the wave"]

    assert wave["ItemReader"]["Parameters"]["Key.$"] == "$.wave.key"
    assert wave["MaxConcurrencyPath"] == "$.wave.concurrency"
    assert wave["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    # Answers of 100,000 targets do not fit between two states.
    assert wave["ResultWriter"]["Parameters"]["Prefix"] == "map-runs"
    assert wave["ResultPath"] is None
    # The local cloud's Map takes a number only.
    assert dict(states(definition(stacks["here"])))["Migrate the wave"]["MaxConcurrency"] == 3


def test_the_function_gets_its_targets_and_the_limit_of_each_server(stacks: dict[str, Stack]) -> None:
    variables = stacks["query"].variables

    assert json.loads(variables["ROLLOUT"]) == {
        "query": QUERY, "secret_prefix": "tenants/", "concurrency": 50, "per_server": 8,
    }  # fmt: skip
    assert variables["SERVER_CONCURRENCY"] == "8"
    (bucket,) = stacks["query"].names("AWS::S3::Bucket")
    assert variables["ROLLOUT_BUCKET"] == {"Ref": bucket}


# --- the bucket ---


def test_the_bucket_is_private_encrypted_behind_tls_emptied_in_time_and_kept(stacks: dict[str, Stack]) -> None:
    bucket = stacks["own"].one("AWS::S3::Bucket")
    properties = bucket["Properties"]

    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    assert properties["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] == 90
    # But not one that a failed first deployment made.
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    policy = stacks["own"].one("AWS::S3::BucketPolicy")
    assert (policy["DeletionPolicy"], policy["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    policy = stacks["own"].properties("AWS::S3::BucketPolicy")["PolicyDocument"]
    assert {"Bool": {"aws:SecureTransport": "false"}} in [
        statement["Condition"] for statement in policy["Statement"] if statement["Effect"] == "Deny"
    ]


# --- who may do what ---


def test_a_fleets_machine_runs_its_own_children_and_reads_and_writes_its_own_objects(stacks: dict[str, Stack]) -> None:
    stack = stacks["query"]
    (bucket,) = stack.names("AWS::S3::Bucket")
    states_arn = f"arn:aws:states:{REGION}:{ACCOUNT}"
    executions = [f"{states_arn}:execution:template-saas-api-migrate-query{end}" for end in ("/*", ":*")]

    assert machine_may(stack) == {
        **may_with_versions(stack.function_name),
        "states:StartExecution": [f"{states_arn}:stateMachine:template-saas-api-migrate-query"],
        "states:DescribeExecution": executions,
        "states:StopExecution": executions,
        "states:RedriveExecution": executions,
        "s3:GetObject": [f"<{bucket}.Arn>/rollouts/*"],
        "s3:ListBucket": [f"<{bucket}.Arn>"],
    }


@pytest.mark.parametrize(
    "stage,readable,listed",
    [
        ("own", [], False),
        ("query", [f"{SECRETS}:tenants/*"], False),
        ("prefix", [f"{SECRETS}:tenants/*"], True),
        ("tag", [f"{SECRETS}:*"], True),
        ("list", [f"{SECRETS}:tenants/a-??????"], False),
    ],
)
def test_the_function_reads_the_targets_secrets_and_no_other(
    stacks: dict[str, Stack], stage: str, readable: list[str], *, listed: bool
) -> None:
    stack = stacks[stage]
    statements = {each.get("Sid"): each for each in stack.statements_of(stack.function["Role"]["Fn::GetAtt"][0])}

    found = statements.get("ReadTheTargetsSecrets", {})
    assert text_of(as_list(found.get("Resource", [])), stack) == readable
    assert found.get("Condition") == (
        {"StringEquals": {"aws:ResourceTag/tenant-of": "api"}} if stage == "tag" else None
    )
    assert ("ListSecrets" in statements) is listed
    assert as_list(statements["KeepRollouts"]["Action"]) == ["s3:GetObject", "s3:PutObject"]
    (bucket,) = stack.names("AWS::S3::Bucket")
    assert text_of(statements["KeepRollouts"]["Resource"], stack) == f"<{bucket}.Arn>/rollouts/*"


def test_a_workflow_may_stop_a_rollout_and_write_nothing_else(stacks: dict[str, Stack]) -> None:
    stack = stacks["github"]
    (role,) = [name for name in stack.names("AWS::IAM::Role") if name.startswith("Github")]
    (bucket,) = stack.names("AWS::S3::Bucket")

    may = {each["Sid"]: (each["Action"], text_of(each["Resource"], stack)) for each in stack.statements_of(role)}

    assert may["StopRollouts"] == ("s3:PutObject", f"<{bucket}.Arn>/rollouts/*/halt.json")
    assert may["ReadReports"] == ("s3:GetObject", f"<{bucket}.Arn>/rollouts/*")
    assert may["ListOutcomes"] == ("s3:ListBucket", f"<{bucket}.Arn>")


# --- the settings ---


@pytest.mark.parametrize(
    "rollout,part",
    [
        ({"query": QUERY, "secret_tag": {"key": "a", "value": "b"}}, "set only one of targets"),
        ({"targets": [{"priority": 1}]}, "a target needs a name, secret_id, database or schema"),
        ({"targets": [{"schema": f"tenant_{n}"} for n in range(200)]}, "name the targets by secret_prefix"),
        ({"canaries": "five"}, "project.stages.dev.rollout.canaries"),
        ({"tolerated_failures": "200%"}, "project.stages.dev.rollout.tolerated_failures"),
        ({"query": QUERY, "canary": 1}, "project.stages.dev.rollout.canary"),
        ({"query": QUERY, "soak_alarm": "slow"}, "soak_alarm needs soak_s"),
        ({"query": QUERY, "between_waves": "soon"}, "project.stages.dev.rollout.between_waves"),
        ({"excluded": [{"name": "a", "reason": "b", "until": "soon"}]}, "project.stages.dev.rollout.excluded.0.until"),
    ],
)
def test_settings_that_make_no_sense_are_refused(rollout: dict[str, Any], part: str) -> None:
    with pytest.raises(StageError) as refused:
        read_project({"stages": {"dev": {"database": DATABASE, "rollout": rollout}}})

    assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_in_a_vpc_rollouts_need_a_way_to_s3() -> None:
    network = {"vpc": "vpc-0a", "subnets": ["subnet-0a"], "database_security_group": "sg-0db"}
    given = {"database": DATABASE, "rollout": {}}

    with pytest.raises(StageError, match=r"set network.s3_prefix_list"):
        read_project({"stages": {"dev": {**given, "network": network}}})
    for way in ({"secrets_endpoint": "nat"}, {"s3_prefix_list": "pl-6da54004"}):
        read_project({"stages": {"dev": {**given, "network": {**network, **way}}}})


def test_the_function_and_the_settings_have_the_same_defaults() -> None:
    settings, rules = RolloutSettings(), Rules()

    assert settings.as_variable == "{}"
    assert {name: getattr(settings, name) for name in Rules.__dataclass_fields__} == vars(rules)


# --- the page ---

DOCS = Path(__file__).resolve().parents[2] / "docs" / "rollouts.md"
MODELS: dict[str, type[BaseModel]] = {
    "rollout": RolloutSettings,
    "targets": RolloutTarget,
    "secret_tag": SecretTag,
    "excluded": ExcludedTarget,
}


def default_of(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    return "" if default in (None, ()) else f"`{default}`"


@pytest.mark.parametrize("title", MODELS)
def test_its_tables_have_every_setting_with_its_default_and_description(title: str) -> None:
    section = re.split(r"^#+ ", DOCS.read_text(encoding="utf-8").split(f"\n### {title}\n")[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", section, flags=re.MULTILINE)

    assert rows == [
        (field.alias or name, default_of(field.default), f"{str(field.description).removesuffix('.')}.")
        for name, field in MODELS[title].model_fields.items()
    ]


def test_the_pages_example_is_a_stage() -> None:
    (example,) = re.findall(r"```json\n(\"dev\".*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)

    assert Stage.model_validate(json.loads(f"{{{example}}}")["dev"]).rollout


def holds(rule: dict[str, Any], item: dict[str, Any]) -> bool:
    """Evaluate a rule of a Choice. Only the operators of the pruning are supported."""
    if "And" in rule:
        return all(holds(each, item) for each in rule["And"])
    if "Not" in rule:
        return not holds(rule["Not"], item)
    value = item[rule["Variable"].removeprefix("$.")]
    if "StringEquals" in rule:
        return bool(value == rule["StringEquals"])
    return bool(value < item[rule["NumericLessThanPath"].removeprefix("$.")])


@pytest.mark.parametrize("published", [1, 10, 11, 14])
def test_pruning_keeps_the_newest_ten_versions_of_lambdas_own_list(
    stacks: dict[str, Stack], monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    [branch] = dict(states(definition(stacks["query"])))["Prune old versions"]["Branches"]
    each = branch["States"]["For each version"]
    [old] = each["ItemProcessor"]["States"]["Is it an old one?"]["Choices"]
    kept = int(re.search(r"MathAdd\(\$\$\.Map\.Item\.Index, (\d+)\)", each["ItemSelector"]["at_least.$"])[1])  # type: ignore[index]
    for name, value in (
        ("ACCESS_KEY_ID", "testing"),
        ("SECRET_ACCESS_KEY", "testing"),
        ("DEFAULT_REGION", "eu-west-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        role = boto3.client("iam").create_role(RoleName="function", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        functions = boto3.client("lambda")
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("code.py", "")
        functions.create_function(
            FunctionName="f", Runtime="python3.13", Role=role, Handler="x", Code={"ZipFile": code.getvalue()}
        )
        for number in range(published):
            functions.update_function_configuration(FunctionName="f", Description=str(number))
            functions.publish_version(FunctionName="f")

        listed = functions.list_versions_by_function(FunctionName="f")["Versions"]
        versions = [version["Version"] for version in listed]
        for index, version in enumerate(versions):
            if holds(old, {"version": version, "at_least": index + kept, "count": len(versions)}):
                functions.delete_function(FunctionName="f", Qualifier=version)

        left = [each["Version"] for each in functions.list_versions_by_function(FunctionName="f")["Versions"]]
        newest = [str(number) for number in range(max(1, published - 9), published + 1)]
        assert left == ["$LATEST", *newest]
