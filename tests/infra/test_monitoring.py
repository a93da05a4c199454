"""The dashboard, the alarms and the saved queries use existing metrics and fields, and notify the stage's topic."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra import queries
from infra.names import Names
from lambda_migrate.invocation import telemetry
from lambda_migrate.invocation.result import RunState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.infra.synthesis import Stack

pytestmark = pytest.mark.xdist_group("monitoring")

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "log-schema.json").read_text(encoding="utf-8"))["$defs"]
FIELDS: dict[str, Any] = SCHEMA["happened"]["properties"]
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"

# What a query may hold beside fields of ours: CloudWatch's own fields, and its language.
OF_CLOUDWATCH = {"@timestamp"}
LANGUAGE = {
    *("fields", "filter", "stats", "sort", "limit", "by", "as", "in", "and", "or", "asc", "desc", "count", "runs"),
    "ispresent",
}

QUERIES = {query.title: query for query in vars(queries).values() if isinstance(query, queries.Query)}

STAGES: dict[str, tuple[Names, dict[str, Any]]] = {
    "dev": (Names("acme", "api", "dev"), {"database": {"secret": "x"}, "timeout_s": 600, "alarms": TOPIC}),
    "quiet": (Names("acme", "api", "quiet"), {"database": {"secret": "x"}}),
    "fleet": (Names("acme", "api", "fleet"), {"database": {"secret": "x"}, "rollout": {"secret_prefix": "tenants/"}}),
    "billing": (Names("acme", "billing", "dev"), {"database": {"secret": "x"}}),
    "local": (Names("acme", "api", "local"), {"database": {"secret": "x"}, "runtime": "local"}),
}


def dashboard(stack: Stack) -> Any:  # noqa: ANN401 - JSON
    """The dashboard's body. A name that CloudFormation fills in is <its logical id>."""
    pieces = stack.properties("AWS::CloudWatch::Dashboard")["DashboardBody"]["Fn::Join"][1]
    texts = [piece if isinstance(piece, str) else f"<{next(iter(piece.values()))}>" for piece in pieces]
    return json.loads("".join(texts))


def metrics_of(value: object) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Namespace, name and dimensions of each of our metrics, in widgets and alarms."""
    if isinstance(value, dict):
        if value.get("Namespace") == "acme/migrate":
            yield value["MetricName"], value["Namespace"], {each["Name"]: each["Value"] for each in value["Dimensions"]}
        for each in value.values():
            yield from metrics_of(each)
    elif isinstance(value, list):
        if value[:1] == ["acme/migrate"]:
            yield value[1], value[0], {value[2]: value[3], value[4]: value[5]}
        for each in value:
            yield from metrics_of(each)


def alarms(stack: Stack) -> dict[str, Any]:
    return {each["Properties"]["AlarmName"]: each["Properties"] for each in stack.all("AWS::CloudWatch::Alarm")}


# --- what is named exists ---


@pytest.mark.parametrize("title", QUERIES)
def test_every_field_that_a_query_names_is_one_of_the_log(title: str) -> None:
    bare = re.sub(r'"[^"]*"', "", QUERIES[title].text)
    aliases = set(re.findall(r"\bas (\w+)", bare))
    named = set(re.findall(r"@?[A-Za-z_][A-Za-z0-9_.]*", bare)) - LANGUAGE - OF_CLOUDWATCH - aliases

    assert named
    for field in named:
        name, _, item = field.partition(".")
        assert name in FIELDS, field
        assert (FIELDS[name].get("type") == "array") == bool(item), f"{field}: CloudWatch names items of lists alone"


@pytest.mark.parametrize("title", QUERIES)
def test_every_event_that_a_query_names_is_one_of_the_log(title: str) -> None:
    named = re.findall(r'"([a-z]+\.[a-z]+)"', QUERIES[title].text)

    assert set(named) <= set(FIELDS["event"]["enum"])


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "billing"])
def test_every_metric_that_is_named_is_one_that_the_function_measures(
    stacks: dict[str, Stack], stage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", stacks[stage].variables["POWERTOOLS_METRICS_NAMESPACE"])
    telemetry._metrics.cache_clear()  # noqa: SLF001 - as a new execution environment begins
    for outcome in telemetry.TARGET_METRICS if "rollout" in STAGES[stage][1] else [None]:
        telemetry.measure(stage, RunState(), applied=1, duration_ms=1, failed=False, outcome=outcome)
    telemetry._metrics.cache_clear()  # noqa: SLF001 - and ends
    lines = [json.loads(line)["_aws"]["CloudWatchMetrics"] for line in capsys.readouterr().out.splitlines()]
    measured = lines[0][0]
    # The first is that of dashboards that others have made.
    assert measured["Dimensions"][0] == ["stage"]
    (_, dimensions) = measured["Dimensions"]
    names = {each["Name"] for (line,) in lines for each in line["Metrics"]}

    named = [*metrics_of(dashboard(stacks[stage])), *metrics_of(list(stacks[stage].resources.values()))]

    assert {name for name, _, _ in named} == names
    for _, namespace, dimension in named:
        assert namespace == measured["Namespace"]
        assert dimension.keys() == set(dimensions)
        assert dimension == {"stage": stage, "service": stacks[stage].variables["POWERTOOLS_SERVICE_NAME"]}


# --- alarms ---


def test_there_is_an_alarm_for_each_thing_that_goes_wrong(dev: Stack) -> None:
    assert {name: each["Threshold"] for name, each in alarms(dev).items()} == {
        "acme-api-migrate-dev-failed-run": 1,
        "acme-api-migrate-dev-failed-rollout": 1,
        "acme-api-migrate-dev-aborted-rollout": 1,
        "acme-api-migrate-dev-timed-out-rollout": 1,
        "acme-api-migrate-dev-failed-destination": 1,
        "acme-api-migrate-dev-close-to-timeout": 540_000,  # 90 % of 600 s
        "acme-api-migrate-dev-throttled": 1,
        "acme-api-migrate-dev-long-lock-wait": 60_000,
    }


def test_a_failed_run_is_one_that_lambda_or_the_function_itself_counts(dev: Stack) -> None:
    metrics = alarms(dev)["acme-api-migrate-dev-failed-run"]["Metrics"]

    counted = {each["MetricStat"]["Metric"]["MetricName"] for each in metrics if "MetricStat" in each}
    assert counted == {"Errors", "MigrationFailures"}


def test_alarms_notify_the_topic_and_missing_data_is_no_alarm(dev: Stack) -> None:
    for alarm in alarms(dev).values():
        assert alarm["AlarmActions"] == [TOPIC]
        assert alarm["TreatMissingData"] == "notBreaching"


def test_without_a_topic_alarms_are_there_to_be_seen(stacks: dict[str, Stack]) -> None:
    # Without a topic there is no destination that could fail.
    assert len(alarms(stacks["quiet"])) == len(alarms(stacks["dev"])) - 1
    assert all("AlarmActions" not in each for each in alarms(stacks["quiet"]).values())


def test_two_services_of_one_stage_and_account_do_not_ring_for_each_other(stacks: dict[str, Stack]) -> None:
    def rings_for(stack: Stack) -> set[str]:
        return {dimension["service"] for _, _, dimension in metrics_of(list(stack.resources.values()))}

    assert rings_for(stacks["dev"]) == {"acme-api-migrate"}
    assert rings_for(stacks["billing"]) == {"acme-billing-migrate"}


# --- dashboard and queries ---


def test_the_dashboard_has_the_contracts_name(dev: Stack) -> None:
    assert dev.properties("AWS::CloudWatch::Dashboard")["DashboardName"] == "acme-api-migrate-dev"


def test_the_dashboard_shows_the_log_of_its_own_stage_only(dev: Stack) -> None:
    group = dev.log_group_name
    texts = [each["properties"]["query"] for each in dashboard(dev)["widgets"] if each["type"] == "log"]

    shown = {text.removeprefix(f"SOURCE '<{group}>' | ").replace("\n| ", " | ") for text in texts}
    assert shown == {" | ".join(query.commands) for query in QUERIES.values()}


def test_the_queries_are_saved_in_a_folder_of_the_stage(dev: Stack) -> None:
    saved = {each["Properties"]["Name"]: each["Properties"] for each in dev.all("AWS::Logs::QueryDefinition")}

    assert set(saved) == {f"acme-api-migrate-dev/{query.title}" for query in queries.SAVED}
    group = dev.log_group_name
    assert all(each["LogGroupNames"] == [{"Ref": group}] for each in saved.values())


def test_the_local_stage_omits_only_the_resources_that_the_local_cloud_refuses(stacks: dict[str, Stack]) -> None:
    assert stacks["local"].all("AWS::Logs::QueryDefinition") == []
    assert all("Metrics" not in each for each in alarms(stacks["local"]).values())
    kinds = {kind: {each["Type"] for each in stacks[kind].resources.values()} for kind in ("local", "quiet")}
    # The local stage's function has no versions: its settings are changed between two runs.
    assert kinds["quiet"] - kinds["local"] == {"AWS::Logs::QueryDefinition", "AWS::Lambda::Version"}
