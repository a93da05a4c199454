"""The options of `review`; `reviewer` does the work. Needs no AWS."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from migrate_cli.errors import UsageError


class Format(str, Enum):
    """The formats of a review."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"
    JUNIT = "junit"
    GITLAB = "gitlab"
    MARKDOWN = "markdown"


def review(
    revisions: Annotated[
        list[str] | None, typer.Argument(help="Ids, beginnings of ids, or head. Default: all.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="GITREF", help="The revisions that are new since this branch, such as origin/main."),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            envvar="MIGRATE_STAGE",
            help="Run env.py with this stage's `environment` of cdk.json. Default: what all stages share.",
        ),
    ] = None,
    backend: Annotated[Path, typer.Option(help="The backend's folder, with the Alembic tree.")] = Path("back"),
    config: Annotated[
        str | None,
        typer.Option(
            help="The Alembic configuration, relative to the backend.", show_default="alembic.ini or pyproject.toml"
        ),
    ] = None,
    shape: Annotated[
        Format, typer.Option("--format", help="For a terminal, a program, GitHub or GitLab.")
    ] = Format.TEXT,
    rows: Annotated[int, typer.Option(min=1, help="The number of rows in each table.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Record the reviewed revisions in the tree's reviewed.json.")
    ] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="RULE", help="Explain a rule with examples, and review nothing.")
    ] = None,
    allow_unmeasured: Annotated[
        bool, typer.Option("--allow-unmeasured", help="Exit with 0 even if a revision could not be measured.")
    ] = False,
    python: Annotated[
        Path | None, typer.Option(help="The backend's Python. Default: that of its .venv, or this one.")
    ] = None,
    postgres: Annotated[
        int,
        typer.Option(
            min=15, max=18, help="PostgreSQL's major version. npm downloads versions other than 18 on first use."
        ),
    ] = 18,
    database_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Your own server. The review creates databases there and drops them."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A schema dump of the database before the first revision.",
            show_default="baseline.sql",
        ),
    ] = None,
) -> int:
    """Review revisions by running them on a PostgreSQL with rows. Exits with 1 if there is an error."""
    # These libraries load slowly, and no other command needs them.
    from migrate_cli import reviewer  # noqa: PLC0415
    from migrate_review.measure.session import Where  # noqa: PLC0415

    if explain is not None:
        return reviewer.explain(explain)
    if as_json and shape not in (Format.TEXT, Format.JSON):
        raise UsageError(f"--json and --format {shape.value} exclude each other", advice="Pass only one of them.")
    wanted = reviewer.Wanted(
        names=tuple(revisions or ()),
        since=since,
        backend=backend,
        config=config,
        rows=rows,
        python=python,
        record=record,
        allow_unmeasured=allow_unmeasured,
        stage=stage,
        where=Where(postgres, database_url, baseline),
    )
    return reviewer.run(wanted, (Format.JSON if as_json else shape).value)
