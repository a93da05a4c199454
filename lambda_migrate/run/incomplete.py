"""A run that its deadline ends before it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import MigrationIncomplete

if TYPE_CHECKING:
    from lambda_migrate.env_py.messages import Failure
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Revision
    from lambda_migrate.run.run_record import Attempt, RunRecord
    from lambda_migrate.run.supervisor import ProcessEnd

# A statement's timeout is 98 % of the time that was left when it was set. So a statement that is cancelled with at most
# this share of the time left has run out of time.
_TIMEOUT_TOLERANCE = 0.05


def is_out_of_time(end: ProcessEnd, failure: Failure | None, *, left: float, before: float) -> bool:
    """Return whether time ended the attempt: the supervisor's, a statement's timeout, or a stop between revisions."""
    cut_off = failure is not None and failure.kind == "cancelled" and left <= before * _TIMEOUT_TOLERANCE
    return end.out_of_time or cut_off or bool(end.ended and end.ended.stopped)


def check_complete(
    invocation: Invocation, record: RunRecord, attempt: Attempt, failure: Failure | None, *, has_ended: bool
) -> None:
    """Raise `MigrationIncomplete` unless all was done before time was up.

    ``has_ended`` is False if env.py may not have reached all its version tables.
    """
    state = record.state
    left = record.left(attempt)
    if attempt.began is None:
        raise MigrationIncomplete("the run's deadline came before env.py had reached the version table; invoke again")
    if not left and failure is None and has_ended:
        return
    following = f", the next is {left[0].revision} ({left[0].description})" if left else ""
    # The TimeoutError of a revision that works in steps has its progress.
    progress = f" ({failure.message})" if failure and failure.error_type == TimeoutError.__name__ else ""
    raise MigrationIncomplete(
        f"stopped {invocation.deadline.reserve:.1f} s before the run's deadline: {len(state.done)} applied,"
        f" {len(left)} left{following}{progress}; {state.where()}; {_next_step(attempt, left)}",
        revision=left[0].revision if left else None,
        pending=[revision.revision for revision in left],
    )


def _next_step(attempt: Attempt, left: tuple[Revision, ...]) -> str:
    ids = {ran.revision.revision for _, ran in attempt.ran}
    rolled_back = sum(revision.revision in ids for revision in left)
    if not rolled_back or attempt.left([]) != left:
        return "invoke again to continue from there"
    return (
        f"env.py runs all revisions in one transaction, and the {rolled_back} that had run were rolled back: give the"
        ' function more time, or apply fewer revisions at once ("revision": "+1")'
    )
