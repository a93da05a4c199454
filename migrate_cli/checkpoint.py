"""The command `checkpoint`. Needs no AWS."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lambda_migrate.invocation.wording import counted
from migrate_cli import stages
from migrate_cli.errors import CommandError, ExitCode, UsageError
from migrate_cli.output import Output


def checkpoint(
    backend: Annotated[Path, typer.Option(help="The backend's folder, with the Alembic tree.")] = Path("back"),
    at: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION", help="The last revision in the checkpoint. Default: head.", show_default="all heads"
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Leave this item out of the checkpoint, as the refusal lists it. Repeatable."
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            envvar="MIGRATE_STAGE",
            help="Run env.py with this stage's `environment` of cdk.json.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="The Alembic configuration, relative to the backend.", show_default="alembic.ini or pyproject.toml"
        ),
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="The backend's Python. Default: that of its .venv, or this one.")
    ] = None,
    postgres: Annotated[
        list[int] | None,
        typer.Option(
            min=15, max=18, help="The PostgreSQL major versions to prove it on. Older servers run the revisions."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Write a script that sets up an empty database, and prove that it equals the revisions."""
    # These libraries load slowly, and no other command needs them.
    from localcloud.errors import LocalCloudError  # noqa: PLC0415
    from migrate_cli.reviewer import configuration  # noqa: PLC0415
    from migrate_review.checkpoint.making import VERSIONS, IncompleteCheckpointError, make  # noqa: PLC0415
    from migrate_review.checkpoint.replaying import Backend  # noqa: PLC0415
    from migrate_review.driver.interpreters import interpreter  # noqa: PLC0415
    from migrate_review.errors import ReviewError  # noqa: PLC0415
    from migrate_review.measure.session import settings_of  # noqa: PLC0415

    output = Output("migrate checkpoint", as_json=as_json)
    try:
        variables, all_names = stages.environment(stage), stages.variables_of_all()
        try:
            settings = settings_of(backend, config or configuration(backend), variables)
        except ReviewError as error:
            raise UsageError(str(error)) from None
        made = make(
            Backend(backend, settings, python or interpreter(backend.resolve()), variables, all_names),
            at=at,
            allow=allow or (),
            versions=postgres or VERSIONS,
            progress=output.note,
        )
        made.write()
    except IncompleteCheckpointError as error:
        for item in error.items:
            output.note(f"  {item.name}: {item.why}")
        return output.fail(CommandError("CheckpointRefused", str(error), ExitCode.FAILED))
    except (ReviewError, LocalCloudError) as error:
        return output.fail(CommandError("CheckpointFailed", str(error), ExitCode.FAILED))
    except CommandError as error:
        return output.fail(error)
    except KeyboardInterrupt:
        return output.fail(CommandError("Interrupted", "no checkpoint was written", ExitCode.INTERRUPTED))
    for remark in made.remarks:
        output.note(remark)
    found = made.checkpoint
    if as_json:
        document = {
            "revision": found.revision,
            "revisions": len(found.revisions),
            "fingerprint": found.fingerprint,
            "any_schema": found.any_schema,
            "allowed": [item.name for item in made.items],
            "remarks": made.remarks,
            "files": [str(made.tree / name) for name in ("checkpoint.json", "checkpoint.sql")],
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        output.note(
            f"the checkpoint at {found.revision} contains {counted(len(found.revisions), 'revision')}: {made.tree}"
        )
    return ExitCode.OK
