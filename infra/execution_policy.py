"""The policies that restrict a stage's deployment to the stage: `make execution-policy STAGE=dev` prints them.

CloudFormation acts as the execution role of the CDK's bootstrap stack, which is an administrator by default. Whoever
may push to the branch of one stage may then change every other stage of the account. A bootstrap stack of its own for
each stage (`bootstrap_qualifier`) with these policies prevents that:

- ``<stack>-execution`` is for the execution role: it may change resources with the stage's names only.
- ``<stack>-boundary`` is the permissions boundary of every role in the stack. A role may never do more than the roles
  of the template do now, and the execution role can create no role without the boundary.
- ``<stack>-deployment`` is for the deploy role, which may by default change every stack of the account. CloudFormation
  changes a stack with the role of the stack's last deployment, also for a caller that may not pass that role.

All are made from the stage's template, as a template of CloudFormation that an administrator deploys once, and again
when the stack needs a new kind of resource or permission.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import StageError
from infra.permissions import READ_PACKAGE
from infra.stages import Project, read_project

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from infra.names import Names
    from infra.settings.database import DatabaseSettings
    from infra.settings.network import NetworkSettings
    from infra.stages import Stage

ROOT = Path(__file__).resolve().parents[1]
# IAM's limit for a managed policy, without white space.
LONGEST_POLICY = 6144

_LONGEST_NAMES = {
    "AWS::Partition": len("aws-us-gov"),
    "AWS::Region": len("ap-southeast-1"),
    "AWS::AccountId": len("123456789012"),
    "AWS::URLSuffix": len("amazonaws.com.cn"),
}
_PARTITION, _REGION, _ACCOUNT = ({"Ref": f"AWS::{name}"} for name in ("Partition", "Region", "AccountId"))
_STATES_LOGGING = [
    *(f"logs:{what}LogDelivery" for what in ("Create", "Get", "Update", "Delete")),
    *("logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
]
_WITH_BOUNDARY = [
    *(f"iam:{what}" for what in ("CreateRole", "PutRolePermissionsBoundary", "PutRolePolicy", "DeleteRolePolicy")),
    *("iam:AttachRolePolicy", "iam:DetachRolePolicy"),
]
_ON_ROLES = [
    *(f"iam:{what}" for what in ("GetRole", "DeleteRole", "UpdateRole", "UpdateRoleDescription", "GetRolePolicy")),
    *(f"iam:{what}" for what in ("UpdateAssumeRolePolicy", "TagRole", "UntagRole")),
    *("iam:ListRolePolicies", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole"),
]
_EC2 = [
    *(f"ec2:{what}SecurityGroup" for what in ("Create", "Delete")),
    *(f"ec2:{what}SecurityGroup{way}" for what in ("Authorize", "Revoke") for way in ("Ingress", "Egress")),
    *("ec2:CreateTags", "ec2:DeleteTags", "ec2:CreateVpcEndpoint", "ec2:ModifyVpcEndpoint", "ec2:DeleteVpcEndpoints"),
]
_EC2_LOOKS = [
    f"ec2:Describe{what}" for what in ("SecurityGroups", "SecurityGroupRules", "VpcEndpoints", "Vpcs", "Subnets")
]


def names_of_policies(names: Names) -> tuple[str, str, str]:
    """Return the names of the execution policy, the boundary and the deployment policy."""
    return f"{names.stack}-execution", f"{names.stack}-boundary", f"{names.stack}-deployment"


def policies(names: Names, stage: Stage, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a CloudFormation template with the policies for the stack of this template."""
    documents = {
        "Execution": execution_policy(names, stage, template),
        "Boundary": boundary_policy(names, template),
        "Deployment": deployment_policy(names),
    }
    for key, name in zip(documents, names_of_policies(names), strict=True):
        size = _longest(documents[key])
        if size > LONGEST_POLICY:
            raise StageError(
                f"{name} would have {size} characters, and IAM allows {LONGEST_POLICY}: deploy the stage into an"
                " account of its own without bootstrap_qualifier, or remove one of long_runs, github and kms_key"
            )
    return {
        "Description": f"What deploying {names.stack} may change, and the most that its roles may do",
        "Resources": {
            key: {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {"ManagedPolicyName": name, "PolicyDocument": documents[key]},
            }
            for key, name in zip(documents, names_of_policies(names), strict=True)
        },
        "Outputs": {"ExecutionPolicyArn": {"Value": {"Ref": "Execution"}}},
    }


def execution_policy(names: Names, stage: Stage, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy for CloudFormation in this stage.

    Raises:
        StageError: the template has a kind of resource that is unknown here.
    """
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    unknown = sorted(kinds - _ACTIONS.keys() - _WITHOUT_ACTIONS)
    if "AWS::IAM::ManagedPolicy" in unknown:
        raise StageError(
            "rollout: with this number of secrets or logins, the function's role needs managed policies, which these"
            " policies do not allow: name the targets by secret_prefix, secret_tag or query, and the users by a pattern"
        )
    if unknown:
        raise StageError(f"infra/execution_policy.py has no actions for {', '.join(unknown)}")
    known = _arns(names)
    granted: dict[str, tuple[set[str], list[Any]]] = {}
    for kind in sorted(kinds & _ACTIONS.keys()):
        action, place = _ACTIONS[kind]
        granted.setdefault(place, (set(), known[place]))[0].add(action)
    statements = [_allow(sorted(actions), resources) for actions, resources in granted.values()]
    statements += _statements_for_roles(names, kinds)
    statements.append(_allow(_STATES_LOGGING, "*"))
    if "AWS::Logs::QueryDefinition" in kinds:
        kinds_of_query = ["logs:PutQueryDefinition", "logs:DeleteQueryDefinition", "logs:DescribeQueryDefinitions"]
        statements.append(_allow(kinds_of_query, "*"))
    if "AWS::EC2::SecurityGroup" in kinds and stage.network:
        statements.append(_allow(_EC2_LOOKS, "*"))
        resources = [
            _arn("ec2", f"{each}/*") for each in ("security-group", "security-group-rule", "vpc-endpoint", "subnet")
        ]
        # With a parameter or tags, the VPC's id is not known here.
        vpc = str(stage.network.vpc) if str(stage.network.vpc).startswith("vpc-") else "*"
        statements.append(_allow(_EC2, [*resources, _arn("ec2", f"vpc/{vpc}")]))
        statements += _reads_of_network(stage.network, stage.database)
    if stage.kms_key:
        statements.append(_allow(["kms:DescribeKey", "kms:GenerateDataKey", "kms:Decrypt"], stage.kms_key))
    qualifier = stage.bootstrap_qualifier or "hnb659fds"
    assets = _joined(f"cdk-{qualifier}-assets-", _ACCOUNT, "-", _REGION)
    statements += [
        _allow(["s3:GetObject"], _joined("arn:", _PARTITION, ":s3:::", assets, "/*")),
        _allow(["ssm:GetParameters"], _arn("ssm", f"parameter/cdk-bootstrap/{qualifier}/version")),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _reads_of_network(network: NetworkSettings, database: DatabaseSettings) -> list[dict[str, Any]]:
    """Allow CloudFormation to read the SSM parameters of ``network``, and the port in the secret."""
    given = [network.vpc, *network.subnets, *network.databases, network.secrets_endpoint, network.logs_endpoint]
    named = sorted({each.split("#")[0] for each in given if isinstance(each, str) and each.startswith("ssm:")})
    statements = []
    if named:
        parameters = [_arn("ssm", f"parameter{name.removeprefix('ssm:')}") for name in named]
        statements.append(_allow(["ssm:GetParameters"], parameters))
    if network.database_port == "secret" and database.secret:
        secret = database.secret
        arn = secret if secret.startswith("arn:") else _arn("secretsmanager", f"secret:{secret}-??????")
        statements.append(_allow(["secretsmanager:GetSecretValue"], arn))
    return statements


def _statements_for_roles(names: Names, kinds: Collection[str]) -> list[dict[str, Any]]:
    """Allow CloudFormation to make the stack's roles, each with the boundary, and to pass them to their services."""
    _, boundary, _ = names_of_policies(names)
    roles = _arn("iam", f"role/{names.stack}-*", region="")
    bounded = {"StringEquals": {"iam:PermissionsBoundary": _arn("iam", f"policy/{boundary}", region="")}}
    services = ["lambda.amazonaws.com", "states.amazonaws.com"]
    if "AWS::CodeBuild::Project" in kinds:
        services.append("codebuild.amazonaws.com")
    to_services = {"StringEquals": {"iam:PassedToService": services}}
    return [
        {**_allow(_WITH_BOUNDARY, roles), "Condition": bounded},
        _allow(_ON_ROLES, roles),
        {**_allow(["iam:PassRole"], roles), "Condition": to_services},
    ]


def boundary_policy(names: Names, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the permissions boundary: the union of what the roles' policies in the template allow."""
    resources = template["Resources"]
    documents = [
        each["Properties"]["PolicyDocument"] for each in resources.values() if each["Type"] == "AWS::IAM::Policy"
    ]
    for role in (each["Properties"] for each in resources.values() if each["Type"] == "AWS::IAM::Role"):
        documents += [policy["PolicyDocument"] for policy in role.get("Policies", [])]
    statements: list[dict[str, Any]] = []
    for statement in (each for document in documents for each in document["Statement"]):
        if statement["Effect"] == "Allow":
            plain = {key: value for key, value in statement.items() if key != "Sid"}
            if statement.get("Sid") == READ_PACKAGE:
                plain["Resource"] = _any_object(plain["Resource"])
            statements.append(_without_references(plain, template, names))
    # From the managed policy AWSLambdaBasicExecutionRole, for the functions that the CDK adds to a stack.
    own_logs = _arn("logs", f"log-group:/aws/lambda/{names.stack}-*")
    statements.append(_allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], own_logs))
    return {"Version": "2012-10-17", "Statement": _merged(statements)}


def _merged(statements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return fewer statements that allow the same: two become one if they differ in one field only."""
    merged: list[dict[str, Any]] = []
    for each in statements:
        statement = {**each, "Action": _listed(each["Action"]), "Resource": _listed(each["Resource"])}
        for other in merged:
            differing = [key for key in ("Action", "Resource") if statement[key] != other[key]]
            if statement.get("Condition") == other.get("Condition") and len(differing) <= 1:
                for key in differing:
                    other[key] += [value for value in statement[key] if value not in other[key]]
                break
            if not differing and _join_conditions(other.get("Condition", {}), statement.get("Condition", {})):
                break
        else:
            merged.append(statement)
    return merged


def _join_conditions(own: dict[str, Any], other: Mapping[str, Any]) -> bool:
    """Add the values of another condition to this one, and return True, if both test one and the same key."""
    tests = [(test, key) for test, keys in own.items() for key in keys]
    if len(tests) != 1 or tests != [(test, key) for test, keys in other.items() for key in keys]:
        return False
    ((test, key),) = tests
    known = _listed(own[test][key])
    own[test] = {key: known + [value for value in _listed(other[test][key]) if value not in known]}
    return True


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - JSON
    return list(value) if isinstance(value, list) else [value]


def _longest(document: Any) -> int:  # noqa: ANN401 - JSON
    """Return the characters of a policy as IAM counts them, in the partition and the region with the longest names."""
    if isinstance(document, list):
        return sum(map(_longest, document)) + len(document) + 1
    if not isinstance(document, dict):
        return len(json.dumps(document))
    if "Ref" in document:
        return _LONGEST_NAMES[document["Ref"]]
    if "Fn::Join" in document:
        # Each part is counted with its quotation marks, and the text has only one pair.
        parts = document["Fn::Join"][1]
        return 2 + sum(_longest(part) - (2 if isinstance(part, str) else 0) for part in parts)
    return sum(len(json.dumps(key)) + 2 + _longest(value) for key, value in document.items()) + 1


def deployment_policy(names: Names) -> dict[str, Any]:
    """Return the policy that denies the deploy role every change of another stack than the stage's."""
    verbs = ("Cancel", "Continue", "Create", "Delete", "Execute", "Import", "Rollback", "Set", "Signal", "Update")
    denied = {
        "Effect": "Deny",
        "Action": [f"cloudformation:{verb}*" for verb in verbs],
        "NotResource": _arn("cloudformation", f"stack/{names.stack}/*"),
    }
    return {"Version": "2012-10-17", "Statement": [denied]}


def _any_object(arn: Any) -> Any:  # noqa: ANN401 - JSON
    """Return every object of the bucket in an object's ARN, because the next package has another name."""
    *parts, last = arn["Fn::Join"][1] if isinstance(arn, dict) else [arn]
    return _joined(*parts, f"{last[: last.rfind('/') + 1]}*")


def _without_references(value: Any, template: Mapping[str, Any], names: Names) -> Any:  # noqa: ANN401 - JSON
    """Return a part of the template with ARNs in place of references to its resources."""
    if isinstance(value, list):
        return [_without_references(each, template, names) for each in value]
    if not isinstance(value, dict):
        return value
    # A parameter, or one value of it: an id that CloudFormation reads from SSM in each deployment.
    if "Fn::Select" in value or value.get("Ref") in template.get("Parameters", {}):
        return "*"
    resources = template["Resources"]
    if value == {"Ref": "AWS::StackId"}:
        return _arn("cloudformation", f"stack/{names.stack}/*")
    reference = value.get("Ref") or (value.get("Fn::GetAtt") or [None])[0]
    if len(value) == 1 and reference in resources:
        return _arn_of(resources[reference], names)
    return {key: _without_references(each, template, names) for key, each in value.items()}


def _arn_of(resource: Mapping[str, Any], names: Names) -> Any:  # noqa: ANN401 - with references
    """Return the ARN that a reference to a resource means in a policy."""
    if resource["Type"] == "AWS::Logs::LogGroup":
        return _arn("logs", f"log-group:{resource['Properties']['LogGroupName']}:*")
    return _arns(names)[_PLACES[resource["Type"]]][0]


def _arns(names: Names) -> dict[str, list[Any]]:
    """Return the stage's resources by the names of docs/contract.md. Other names begin with the stack's name."""
    function = _arn("lambda", f"function:{names.function}")
    groups = (names.log_group, names.state_machine_log_group, f"/aws/lambda/{names.stack}-*")
    # CloudFormation writes the names of buckets in lower case.
    bucket = _joined("arn:", _PARTITION, f":s3:::{names.stack.lower()}-*")
    return {
        "functions": [function, _joined(function, ":*"), _arn("lambda", f"function:{names.stack}-*")],
        "logs": [_arn("logs", f"log-group:{group}{end}") for group in groups for end in ("", ":*")],
        "machines": [_arn("states", f"stateMachine:{names.state_machine}")],
        "projects": [_arn("codebuild", f"project/{names.long_runs}")],
        "topics": [_arn("sns", f"{names.stack}-alarms")],
        "buckets": [bucket],
        "alarms": [
            _arn("cloudwatch", f"alarm:{names.stack}-*"),
            _arn("cloudwatch", f"dashboard/{names.dashboard}", region=""),
        ],
        "roles": [_arn("iam", f"role/{names.stack}-*", region="")],
    }


# The actions for each kind of resource, and the stage's resources that they apply to. All names belong to the stage, so
# all actions of the service are allowed.
_ACTIONS: Mapping[str, tuple[str, str]] = {
    "AWS::Lambda::Function": ("lambda:*", "functions"),
    "AWS::Lambda::EventInvokeConfig": ("lambda:*", "functions"),
    "AWS::Lambda::Permission": ("lambda:*", "functions"),
    "AWS::Lambda::Version": ("lambda:*", "functions"),
    "Custom::Trigger": ("lambda:*", "functions"),
    "AWS::Logs::LogGroup": ("logs:*", "logs"),
    "AWS::StepFunctions::StateMachine": ("states:*", "machines"),
    "AWS::CodeBuild::Project": ("codebuild:*", "projects"),
    "AWS::SNS::Topic": ("sns:*", "topics"),
    "AWS::SNS::TopicPolicy": ("sns:*", "topics"),
    "AWS::SNS::Subscription": ("sns:*", "topics"),
    "AWS::S3::Bucket": ("s3:*", "buckets"),
    "AWS::S3::BucketPolicy": ("s3:*", "buckets"),
    "AWS::CloudWatch::Alarm": ("cloudwatch:*", "alarms"),
    "AWS::CloudWatch::Dashboard": ("cloudwatch:*", "alarms"),
}
# A separate statement allows the actions of these, if they need any.
_WITHOUT_ACTIONS = frozenset(
    {
        *("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::CDK::Metadata", "AWS::Logs::QueryDefinition"),
        *("AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupEgress", "AWS::EC2::SecurityGroupIngress"),
        "AWS::EC2::VPCEndpoint",
    }
)
_PLACES = {**{kind: place for kind, (_, place) in _ACTIONS.items()}, "AWS::IAM::Role": "roles"}


def _allow(actions: Sequence[str], resources: Any) -> dict[str, Any]:  # noqa: ANN401 - ARNs, maybe with references
    return {"Effect": "Allow", "Action": list(actions), "Resource": resources}


def _arn(service: str, resource: str, *, region: str | None = None) -> Any:  # noqa: ANN401
    """Return an ARN of this account and, unless the service has none, region."""
    return _joined(
        "arn:", _PARTITION, f":{service}:", _REGION if region is None else region, ":", _ACCOUNT, f":{resource}"
    )


def _joined(*parts: Any) -> Any:  # noqa: ANN401
    flat: list[Any] = []
    for part in parts:
        flat += part["Fn::Join"][1] if isinstance(part, dict) and "Fn::Join" in part else [part]
    return {"Fn::Join": ["", [part for part in flat if part != ""]]}


def check_stages_differ(project: Project, stage: str) -> None:
    """Raise `StageError` if the names of two stages are so similar that a policy for one would allow the other."""
    # Buckets have their names in lower case.
    begin = f"{project.names(stage).stack}-".lower()
    others = ((other, project.names(other)) for other in project.stages if other != stage)
    longer = [
        other
        for other, names in others
        if any(name.lower().startswith(begin) for name in (names.stack, names.function))
    ]
    if longer:
        raise StageError(
            f"the names of stage {longer[0]} begin like those of {stage}, so a policy cannot separate them: rename"
            " one of them, or use a separate account for each"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the policies of a stage whose template is synthesized, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.execution_policy", description=__doc__)
    parser.add_argument("stage", help="the stage's name in cdk.json")
    parser.add_argument("template", type=Path, help="the stage's template, as `cdk synth` has written it")
    given = parser.parse_args(arguments)
    try:
        project = read_project(json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]["project"])
        stage, names = project.stage(given.stage), project.names(given.stage)
        check_stages_differ(project, given.stage)
        template = json.loads(given.template.read_text(encoding="utf-8"))
        json.dump(policies(names, stage, template), sys.stdout, indent=2)
        sys.stdout.write("\n")
    except (StageError, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
