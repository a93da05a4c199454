"""The dashboard, the alarms and the saved queries of a stage.

They use the CDK's own CloudWatch constructs. cdk-monitoring-constructs would add facades for Lambda's metrics, of which
three are used here. All else is about this function's own metrics and log fields, the dashboard's name is part of the
contract, and each synthesis would load one more library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_logs as logs

from infra import queries

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_sns as sns
    from aws_cdk import aws_stepfunctions as sfn
    from constructs import Construct

    from infra.names import Names
    from infra.stages import Options

_PERIOD = cdk.Duration.minutes(5)
_MS_IN_A_SECOND = 1000
_CLOSE_TO_TIMEOUT = 0.9
_LONG_LOCK_WAIT_MS = 60_000
_THIRD, _HALF, _WHOLE = 8, 12, 24


@dataclass(frozen=True)
class Observed:
    """The stage, its function, its log, and the topic for alarms."""

    names: Names
    stage: Options
    function: lambda_.IFunction
    log_group: logs.ILogGroup
    topic: sns.ITopic | None
    machine: sfn.IStateMachine

    def metric(self, name: str, statistic: str) -> cloudwatch.Metric:
        """Return one of the function's own metrics (lambda_migrate/invocation/telemetry.py)."""
        return cloudwatch.Metric(
            namespace=self.names.metrics_namespace,
            metric_name=name,
            dimensions_map={"stage": self.names.stage, "service": self.names.telemetry_service},
            statistic=statistic,
            period=_PERIOD,
        )

    @property
    def timeout_ms(self) -> int:
        """Return the time after which Lambda kills a run."""
        return self.stage.timeout_s * _MS_IN_A_SECOND


def monitor(scope: Construct, observed: Observed) -> None:
    """Make the dashboard, the alarms and the saved queries of one stage."""
    alarms = _alarms(scope, observed)
    _dashboard(scope, observed, alarms)
    if observed.stage.in_full_cloud:
        _saved_queries(scope, observed)


def _alarms(scope: Construct, observed: Observed) -> list[cloudwatch.IAlarm]:
    function = observed.function
    made = [
        _alarm(
            scope,
            observed,
            "CloseToTimeout",
            function.metric_duration(period=_PERIOD, statistic="Maximum"),
            threshold=observed.timeout_ms * _CLOSE_TO_TIMEOUT,
            means=f"a run took more than 90 % of the {observed.stage.timeout_s} s that Lambda allows it",
        ),
        _alarm(
            scope,
            observed,
            "Throttled",
            function.metric_throttles(period=_PERIOD, statistic="Sum"),
            threshold=1,
            means="an invocation was refused: the account's concurrency is used up",
        ),
        _alarm(
            scope,
            observed,
            "LongLockWait",
            observed.metric("LockWait", "Maximum"),
            threshold=_LONG_LOCK_WAIT_MS,
            means="a run waited for more than a minute for another run to release the migration lock",
        ),
        _alarm(
            scope,
            observed,
            "FailedRollout",
            observed.machine.metric_failed(period=_PERIOD, statistic="Sum"),
            threshold=1,
            means="an execution of the state machine failed; read its cause, and docs/rollouts.md for the fix",
        ),
        _alarm(
            scope,
            observed,
            "AbortedRollout",
            observed.machine.metric_aborted(period=_PERIOD, statistic="Sum"),
            threshold=1,
            means="an execution of the state machine was aborted, without a report",
        ),
        _alarm(
            scope,
            observed,
            "TimedOutRollout",
            observed.machine.metric_timed_out(period=_PERIOD, statistic="Sum"),
            threshold=1,
            means="an execution of the state machine ran out of time",
        ),
    ]
    if observed.topic:
        made.append(
            _alarm(
                scope,
                observed,
                "FailedDestination",
                function.metric("DestinationDeliveryFailures", period=_PERIOD, statistic="Sum"),
                threshold=1,
                means="a failed asynchronous run could not be sent to the topic; read the log",
            )
        )
    if observed.stage.in_full_cloud:
        made.append(
            _alarm(
                scope,
                observed,
                "FailedRun",
                # One alarm instead of two for the same failure. Lambda counts runs that end before they publish a
                # metric, and our own metric is there before Lambda's.
                cloudwatch.MathExpression(
                    expression="FILL(errors, 0) + FILL(failures, 0)",
                    label="Failed runs",
                    period=_PERIOD,
                    using_metrics={
                        "errors": function.metric_errors(period=_PERIOD, statistic="Sum"),
                        "failures": observed.metric("MigrationFailures", "Sum"),
                    },
                ),
                threshold=1,
                means="a run failed; read the log's migration.failed, and docs/errors.md for the fix",
            )
        )
    return made


def _alarm(
    scope: Construct,
    observed: Observed,
    construct_id: str,
    metric: cloudwatch.IMetric,
    *,
    threshold: float,
    means: str,
) -> cloudwatch.IAlarm:
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in construct_id)
    alarm = cloudwatch.Alarm(
        scope,
        construct_id,
        alarm_name=f"{observed.names.stack}{words}",
        alarm_description=f"{observed.names.function}: {means}",
        metric=metric,
        threshold=threshold,
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        evaluation_periods=1,
        # Between two deployments there are no runs, and no problem.
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    if observed.topic:
        alarm.add_alarm_action(actions.SnsAction(observed.topic))
    return alarm


def _dashboard(scope: Construct, observed: Observed, alarms: list[cloudwatch.IAlarm]) -> None:
    function = observed.function
    duration = function.metric_duration(period=_PERIOD, statistic="Maximum", label="Longest run")
    rows: list[list[cloudwatch.IWidget]] = [
        [
            _log(observed, queries.CURRENT_REVISION, width=_HALF, height=3),
            cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms, width=_HALF, height=3),
        ],
        [
            _graph(
                "Runs",
                function.metric_invocations(period=_PERIOD, statistic="Sum", label="Runs"),
                observed.metric("MigrationFailures", "Sum"),
                function.metric_errors(period=_PERIOD, statistic="Sum", label="Errors, as Lambda counts them"),
                function.metric_throttles(period=_PERIOD, statistic="Sum", label="Refused"),
            ),
            _graph("Revisions applied", observed.metric("RevisionsApplied", "Sum")),
            _log(observed, queries.OUTCOMES, width=_THIRD),
        ],
        [
            _graph("Duration", observed.metric("MigrationDuration", "Maximum"), duration),
            _graph(
                "Time left before Lambda's timeout, at the end of the longest run",
                cloudwatch.MathExpression(
                    expression=f"({observed.timeout_ms} - duration) / {_MS_IN_A_SECOND}",
                    label="Seconds left",
                    period=_PERIOD,
                    using_metrics={"duration": duration},
                ),
            ),
            _graph(
                "Lock waits and retries",
                observed.metric("LockWait", "Maximum"),
                right=observed.metric("LockRetries", "Sum"),
            ),
        ],
        [
            _graph(
                "Executions of the state machine",
                *(
                    metric(period=_PERIOD, statistic="Sum", label=label)
                    for metric, label in (
                        (observed.machine.metric_started, "Started"),
                        (observed.machine.metric_succeeded, "Succeeded"),
                        (observed.machine.metric_failed, "Failed"),
                        (observed.machine.metric_aborted, "Aborted"),
                    )
                ),
            ),
            _graph(
                "Runs at once",
                function.metric("ConcurrentExecutions", period=_PERIOD, statistic="Maximum", label="Runs at once"),
            ),
            _graph(
                "Duration of executions",
                observed.machine.metric_time(period=_PERIOD, statistic="Maximum", label="Longest"),
            ),
        ],
        *([[_targets(observed)]] if observed.stage.rollout else []),
        [_log(observed, queries.LAST_RUNS)],
        [_log(observed, queries.FAILURES)],
        [
            _log(observed, queries.SLOWEST_REVISIONS, width=_HALF),
            _log(observed, queries.LOCK_WAITS, width=_HALF),
        ],
        [_log(observed, queries.ESTIMATES)],
    ]
    cloudwatch.Dashboard(
        scope,
        "Dashboard",
        dashboard_name=observed.names.dashboard,
        default_interval=cdk.Duration.days(7),
        widgets=rows,
    )


def _targets(observed: Observed) -> cloudwatch.IWidget:
    """Return the widget with the progress of a rollout."""
    return _graph(
        "Finished targets of rollouts",
        observed.metric("TargetsMigrated", "Sum"),
        observed.metric("TargetsCurrent", "Sum"),
        observed.metric("TargetsFailed", "Sum"),
        width=_WHOLE,
    )


def _graph(
    title: str, *left: cloudwatch.IMetric, right: cloudwatch.IMetric | None = None, width: int = _THIRD
) -> cloudwatch.IWidget:
    return cloudwatch.GraphWidget(
        title=title,
        left=list(left),
        right=[right] if right else [],
        left_y_axis=cloudwatch.YAxisProps(min=0),
        width=width,
    )


def _log(observed: Observed, query: queries.Query, *, width: int = _WHOLE, height: int = 6) -> cloudwatch.IWidget:
    return cloudwatch.LogQueryWidget(
        title=query.title,
        log_group_names=[observed.log_group.log_group_name],
        query_lines=list(query.commands),
        width=width,
        height=height,
    )


def _saved_queries(scope: Construct, observed: Observed) -> None:
    for query in queries.SAVED:
        logs.CfnQueryDefinition(
            scope,
            f"Query{query.title.title().replace(' ', '')}",
            # The console shows the part before a slash as a folder.
            name=f"{observed.names.stack}/{query.title}",
            query_string=query.text,
            log_group_names=[observed.log_group.log_group_name],
        )
