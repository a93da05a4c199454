"""Runs the backend's env.py unmodified, in a process of its own.

The process is forked for each run and ends with it. So nothing that env.py and the application's modules cache, patch,
log or leave open reaches a later run, which may have another target or a rotated password. The process sends `messages`
to its supervisor and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.runtime.environment import EnvironmentContext

from lambda_migrate.env_py import alembic_hook, steps, tree
from lambda_migrate.env_py.connection import (
    READ_ONLY_ACTIONS,
    make_sessions_read_only,
    prepare,
    set_search_path_of_sessions,
)
from lambda_migrate.env_py.failures import failure_of
from lambda_migrate.env_py.inputs import command_line, set_config, set_environment
from lambda_migrate.env_py.journal import Journal
from lambda_migrate.env_py.messages import Connected, Ended, Job, Message
from lambda_migrate.env_py.output import output_as_messages, sent_one_by_one
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.revisions import reviewed

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy
    from alembic.config import Config
    from alembic.script import ScriptDirectory


_WRITING = frozenset({"upgrade", "downgrade", "stamp"})


def run(job: Job, send: Callable[[Message], None]) -> None:
    """Run env.py and send messages. The last one is always `Ended`, unless the process itself dies."""
    send = sent_one_by_one(send)
    journal = Journal(send)
    try:
        with output_as_messages(send):
            _run(job, journal)
        ended = Ended(stopped=journal.stopped, heads=journal.heads if job.action in _WRITING else None)
    except BaseException as error:  # noqa: BLE001 - sys.exit, KeyboardInterrupt and running out of memory included
        ended = Ended(
            failure_of(error, journal.revision, began=journal.began, partly_committed=journal.partly_committed),
            # A revision that stops by itself at the deadline may end before the supervisor checks the time.
            stopped=job.deadline.left() <= 0,
        )
    send(ended)


def _run(job: Job, journal: Journal) -> None:
    path = job.settings.alembic_config
    set_environment(job)
    if not path.parent.is_dir():
        raise ConfigurationError(f"the package has no folder {path.parent.name}")
    # Relative paths in the config file and in env.py start at the folder in which the alembic command runs.
    os.chdir(path.parent)
    sys.path.insert(0, str(path.parent))
    config = tree.read_config(path)
    set_config(config, job)
    if job.action in READ_ONLY_ACTIONS:
        make_sessions_read_only(pooled=job.pooled)
    if job.pooled and job.schema is not None:
        set_search_path_of_sessions(job.schema)
    graph = tree.packaged_graph(job.settings)
    if job.action == "doctor" and graph is not None:
        tree.compare(graph)
    script = tree.load(config, None if job.action == "doctor" else graph)
    if job.action in {"history", "doctor"}:
        for entry in steps.history(script):
            journal.send(entry)
        return
    wanted = steps.Steps(job, config, script, graph, journal)
    # A plan is rendered from the current revisions, which a first run of env.py reads.
    action = "status" if job.action == "plan" else job.action
    with EnvironmentContext(
        config,
        script,
        fn=getattr(wanted, action),
        destination_rev=job.revision,
        dont_mutate=action in READ_ONLY_ACTIONS,
    ) as environment:
        _hook(environment, job, journal)
        script.run_env()
    if not journal.began:
        raise ConfigurationError("env.py came to its end without calling context.run_migrations()")
    if job.action == "plan" and not journal.ahead:
        _render_plan(job, config, script, journal)


def _render_plan(job: Job, config: Config, script: ScriptDirectory, journal: Journal) -> None:
    """Run env.py once more, in Alembic's offline mode. If env.py raises, the revisions left get its error."""
    config.cmd_opts = command_line(job, "--sql")
    # A revision may connect without SQLAlchemy, too. Poolers refuse the startup parameter.
    if not job.pooled:
        os.environ["PGOPTIONS"] = f"{os.environ.get('PGOPTIONS', '')} -c default_transaction_read_only=on".strip()
    config.output_buffer = buffer = io.StringIO()
    rendering = steps.Rendering(job, script, journal, buffer, journal.heads, reviewed.findings(Path(script.dir)))
    with EnvironmentContext(
        config,
        script,
        fn=rendering.plan,
        as_sql=True,
        starting_rev=journal.heads or None,
        destination_rev=job.revision,
    ) as environment:
        _hook(environment, job, journal)
        try:
            script.run_env()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an env.py without an offline mode may raise anything
            rendering.send_the_rest(error)


def _hook(environment: EnvironmentContext, job: Job, journal: Journal) -> None:
    def prepare_connection(connection: sqlalchemy.Connection) -> None:
        journal.send(Connected(prepare(connection, job)))
        journal.watch(connection)

    def change_options(options: dict[str, Any]) -> None:
        options["on_version_apply"] = (*_several(options.get("on_version_apply")), _note_heads(journal))
        if job.schema is not None:
            options["version_table_schema"] = job.schema

    def set_held_open(_: sqlalchemy.Connection, held_open: bool) -> None:  # noqa: FBT001 - the value of a setter
        journal.held_open = held_open

    alembic_hook.install(
        environment, prepare=prepare_connection, set_held_open=set_held_open, change_options=change_options
    )


def _several(callbacks: Any) -> tuple[Any, ...]:  # noqa: ANN401 - Alembic takes none, one or several
    if callbacks is None:
        return ()
    return (callbacks,) if callable(callbacks) else tuple(callbacks)


def _note_heads(journal: Journal) -> Callable[..., None]:
    def note(*, heads: set[str], **_: Any) -> None:  # noqa: ANN401
        journal.heads = tuple(sorted(heads - journal.forgotten))

    return note
