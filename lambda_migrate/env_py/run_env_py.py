"""Runs the backend's env.py unmodified, in its own process.

The process is forked for each run and ends with it. So nothing that env.py and the application's modules cache, patch,
log or leave open reaches a later run, which may have another target or a rotated password. The process sends `messages`
to its supervisor and nothing else.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.runtime.environment import EnvironmentContext

from lambda_migrate.env_py import alembic_hook, steps, tree
from lambda_migrate.env_py.connection import prepare, set_search_path_of_sessions
from lambda_migrate.env_py.driver_errors import find_missing_object
from lambda_migrate.env_py.failures import failure_of
from lambda_migrate.env_py.flask_app import VARIABLE as FLASK_APP
from lambda_migrate.env_py.flask_app import in_app
from lambda_migrate.env_py.inputs import set_command_line, set_config, set_environment
from lambda_migrate.env_py.journal import Journal, MigrationsCall
from lambda_migrate.env_py.looking import Looking
from lambda_migrate.env_py.messages import READ_ONLY_ACTIONS, Began, Connected, Ended, Job, Message, Output, Untrusted
from lambda_migrate.env_py.output import OutputLimit, output_as_messages, sent_one_by_one
from lambda_migrate.env_py.tls import hold_tls
from lambda_migrate.invocation.errors import ConfigurationError, MigrationError
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.redaction import conceal, conceal_for_good, forget_all_but, one_line
from lambda_migrate.invocation.settings import secrets_of
from lambda_migrate.revisions import reviewed
from lambda_migrate.revisions.manifest import working_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from lambda_migrate.env_py.transactions import Transactions


_WRITING = frozenset({"upgrade", "downgrade", "stamp"})
_DISCARDED = (
    "env.py rolled its transaction back after its revisions, but the function had committed them: let env.py call"
    " rollback() in its own `with context.begin_transaction():`, or begin the transaction before context.configure()"
)


def run(job: Job, send: Callable[[Message], None]) -> None:
    """Run env.py and send messages. The last one is always `Ended`, unless the process itself dies."""
    # This process keeps the secrets of this run, and of no other one.
    conceal(job.credentials.password)
    forget_all_but(job.credentials.password)
    conceal_for_good(secrets_of(job.settings))
    send = sent_one_by_one(send)
    looking = Looking(job, may_write=job.may_write) if job.action in READ_ONLY_ACTIONS else None
    journal = Journal(send if looking is None else _adding_what_may_write(looking, send))
    limit = job.settings.output_lines
    backend = job.settings.package_root / "backend"
    output = OutputLimit(send, limit - job.output_lines, limit)
    try:
        with output_as_messages(sent_one_by_one(output.send)):
            _run(job, journal, looking)
        heads = {each.table: each.heads for each in journal.calls}
        ended = Ended(stopped=journal.stopped, heads=heads if job.action in _WRITING else None)
    except BaseException as error:  # noqa: BLE001 - sys.exit, KeyboardInterrupt and running out of memory included
        ended = Ended(
            failure_of(error, journal, backend=backend, password=job.credentials.password),
            # A revision that stops by itself at the deadline may end before the supervisor checks the time.
            stopped=job.deadline.left() <= 0,
        )
    output.finish()
    refused_write = looking is not None and looking.has_refused(ended.failure)
    send(replace(ended, refused_write=refused_write, differs=journal.differs))


def _adding_what_may_write(looking: Looking, send: Callable[[Message], None]) -> Callable[[Message], None]:
    def send_all(message: Message) -> None:
        if isinstance(message, Began):
            message = replace(message, may_write=message.may_write or looking.may_write_by_itself)
        send(message)

    return send_all


def _run(job: Job, journal: Journal, looking: Looking | None) -> None:
    path = job.settings.alembic_config
    set_environment(job)
    hold_tls(job.credentials.sslmode, job.credentials.sslrootcert)
    if not path.parent.is_dir():
        raise ConfigurationError(f"the package has no folder {path.parent.name}")
    # Relative paths in the config file and in env.py start at the folder in which the alembic command runs.
    folder = working_folder(job.settings)
    os.chdir(folder)
    sys.path[:0] = dict.fromkeys([str(path.parent), str(folder)])
    config = tree.read_config(path)
    set_config(config, job)
    if looking is not None:
        looking.install()
    if job.pooled and job.schema is not None:
        set_search_path_of_sessions(job.schema)
    with in_app(tree.env_py(config), os.environ.get(FLASK_APP)) as complete:
        _perform(job, complete(config), journal, looking)


def _perform(job: Job, config: Config, journal: Journal, looking: Looking | None) -> None:
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
        apply_checkpoint = None
        if job.checkpoint and graph is not None and graph.manifest.checkpoint is not None:
            module = load("lambda_migrate.env_py.apply_checkpoint")
            apply_checkpoint = module.ApplyCheckpoint(job, script, graph, journal)
        transactions = _hook(environment, job, journal, before_revisions=apply_checkpoint)
        _run_env(script, job, journal, looking)
        if job.trial == "doctor" and graph is not None:
            graph.load_all()
    journal.raise_caught()
    if job.action in _WRITING and any(each.is_discarded for each in transactions):
        raise ConfigurationError(_DISCARDED)
    if not journal.began:
        raise ConfigurationError(
            "env.py ended without calling context.run_migrations(): if it migrates each schema that it finds,"
            " it found none; the function does not see what it migrates in another way or process"
        )
    wanted.raise_drift()
    # One for each version table, also if env.py runs migrations twice for it.
    calls = [*{each.table: each for each in reversed(journal.calls) if not each.ahead}.values()][::-1]
    if looking is not None and job.action == "plan" and calls:
        looking.render()
        _render_plan(wanted, calls)


def _run_env(script: ScriptDirectory, job: Job, journal: Journal, looking: Looking | None) -> None:
    """Run env.py to its end: a return, sys.exit(0), or an error only because a look runs no revision."""
    try:
        _in_this_process(script.run_env)
    except SystemExit as error:
        journal.raise_caught(error)
        # As Python itself sees it: any other object is an error's message.
        if error.code is not None and not (isinstance(error.code, int) and error.code == 0):
            raise
    except Exception as error:
        missing = find_missing_object(error)
        if missing is None or looking is None or not _may_lack_pending(error, job, journal, looking):
            raise
        text = f"env.py failed after its revisions, which are pending: {one_line(missing)}"
        journal.send(Output(logging.WARNING, "env.py", text))


def _in_this_process(run: Callable[[], object]) -> None:
    """Call ``run``. A process that env.py forks ends with it, as Python would end it, so that only this one answers."""
    process, code = os.getpid(), 1
    try:
        run()
        code = 0
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            code = error.code or 0
        raise
    finally:
        if os.getpid() != process:
            try:
                if code:
                    traceback.print_exc()
                sys.stdout.flush()
            finally:
                os._exit(code & 0xFF)


def _may_lack_pending(error: Exception, job: Job, journal: Journal, looking: Looking) -> bool:
    """Return whether an object may be missing after env.py's revisions only because a look does not run them.

    The answer is complete then, unless env.py would have come to further version tables. It is not up to date.
    """
    is_refused = isinstance(error, MigrationError) or looking.has_refused(None)
    return job.trial is None and not (is_refused or journal.caught) and any(each.pending for each in journal.calls)


def _render_plan(online: steps.Steps, calls: list[MigrationsCall]) -> None:
    """Run env.py once more, in Alembic's offline mode. If env.py raises, the revisions left get its error.

    It runs again while there are version tables left: in offline mode, many an env.py calls
    ``context.run_migrations()`` only once.
    """
    job, config, script, journal = online.job, online.config, online.script, online.journal
    set_command_line(config, job, "--sql")
    config.output_buffer = buffer = io.StringIO()
    found = reviewed.findings(Path(script.dir))
    rendering = steps.Rendering(job, script, online.graph, journal, buffer, [*calls], found)
    while rendering.calls:
        left = [*rendering.calls]
        with EnvironmentContext(
            config, script, fn=rendering.plan, as_sql=True, destination_rev=job.revision
        ) as environment:
            _hook(environment, job, journal, rendering)
            try:
                _in_this_process(script.run_env)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an env.py without an offline mode may raise anything
                rendering.send_the_rest(error, left)
                return
        if len(rendering.calls) == len(left):
            rendering.send_the_rest(ConfigurationError("env.py runs no migrations in its offline mode"), left)
            return


def _hook(
    environment: EnvironmentContext,
    job: Job,
    journal: Journal,
    rendering: steps.Rendering | None = None,
    *,
    before_revisions: Callable[[MigrationContext], None] | None = None,
) -> list[Transactions]:
    watched: set[sqlalchemy.Connection] = set()

    def prepare_connection(connection: sqlalchemy.Connection) -> None:
        prepared = prepare(connection, job)
        journal.send(Connected(prepared.pid))
        if prepared.warning is not None:
            journal.send(Untrusted(prepared.warning))
        if connection not in watched:
            watched.add(connection)
            journal.watch(connection)

    def change_options(options: dict[str, Any]) -> None:
        if job.schema is not None:
            options["version_table_schema"] = job.schema
        if rendering is None:
            alembic_hook.call_on_version_apply(options, journal.version_applied)
        else:
            schema, table = options.get("version_table_schema"), options.get("version_table", "alembic_version")
            environment.context_opts["starting_rev"] = rendering.configure(schema, table) or None

    return alembic_hook.install(
        environment,
        prepare=prepare_connection,
        set_held_open=journal.set_held_open,
        change_options=change_options,
        commits=job.action in _WRITING,
        around=journal.migrations if rendering is None else nullcontext,
        before_revisions=before_revisions,
    )
