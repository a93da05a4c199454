"""The states that migrate the stage's own database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import aws_stepfunctions as sfn

from infra.snapshots import snapshot_first
from infra.states.migrating import MigratingStates, Retries
from lambda_migrate.invocation.request import ROLLOUT_INPUT

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_
    from constructs import Construct

    from infra.names import Names
    from infra.stages import Options

_RUNS = 100


class Alone(MigratingStates):
    """Makes the states of a stage without ``rollout``."""

    def __init__(self, scope: Construct, names: Names, stage: Options, function: lambda_.IFunction) -> None:
        super().__init__(scope, names, stage, function, Retries(attempts=10, first_s=5), _RUNS)

    def definition(self) -> sfn.IChainable:
        """Return the first state."""
        # Without this check, an input for a plan or a downgrade would upgrade the database.
        refused = sfn.Fail(
            self.scope,
            "Refuse the input",
            error="InvalidRequest",
            cause="the stage has no targets, so its machine takes no input: it upgrades the stage's own database",
        )
        given = [sfn.Condition.is_present(f"$.{name}") for name in ROLLOUT_INPUT]
        return (
            sfn.Choice(self.scope, "Is there an input?")
            .when(sfn.Condition.or_(*given), refused)
            .otherwise(self._migration())
        )

    def _migration(self) -> sfn.IChainable:
        begin = sfn.Pass(self.scope, "Begin", parameters={"runs": 0, "last_message": ""})
        done = self.prune(sfn.Succeed(self.scope, "Migrated", output_path="$.run.answer"))
        failed = sfn.Fail(self.scope, "Not migrated", error_path="$.error.Error", cause_path="$.error.Cause")
        if self.stage.snapshot is None:
            return begin.next(self.migrate({"action": "upgrade"}, (), done=done, failed=failed))
        event = {"action": "upgrade", "snapshot": sfn.JsonPath.string_at("$.snapshot")}
        migrate = self.migrate(event, ("snapshot",), done=done, failed=failed)
        # The field `rollout` marks a request of the state machine; only it may send the action.
        dangers = {"action": "dangers", "rollout": {"name": sfn.JsonPath.string_at("$$.Execution.Name")}}
        look = self.invoke("See whether it is dangerous", dangers, "$.look")
        self.retry(look, ["DatabaseUnavailable", "SecretUnavailable"], self.retries)
        return begin.next(
            snapshot_first(self.scope, self.names, self.stage.snapshot, look=look, then=migrate, failed=failed)
        )
