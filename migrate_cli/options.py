"""The options that select a stage's function and a database, for every command that needs them."""

from __future__ import annotations

import functools
import inspect
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from migrate_cli.actions import Call
from migrate_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and everything else to standard error.")]

_STAGE_VARIABLE = "MIGRATE_STAGE"


def _check_place(context: typer.Context, stage: str | None) -> str | None:
    """Return the stage, or the function's name that was given instead."""
    function = context.params.get("function")
    if function is None and stage is None:
        raise UsageError(
            "Missing option '--stage'",
            advice=f"Pass --stage STAGE, or --function NAME without a cdk.json. See: {context.command_path} --help",
        )
    if function is not None and stage not in {None, os.environ.get(_STAGE_VARIABLE)}:
        raise UsageError("--stage and --function exclude each other", advice="Pass only one of them.")
    return function or stage


_STAGE: dict[str, Any] = {
    "stage": Annotated[
        str | None,
        typer.Option(envvar=_STAGE_VARIABLE, callback=_check_place, help="The stage in cdk.json."),
    ],
    "function": Annotated[
        str | None, typer.Option(is_eager=True, help="The function's name, instead of a stage. Needs no cdk.json.")
    ],
    "region": Annotated[
        str | None, typer.Option(help="AWS region. Default: the stage's in cdk.json, or your AWS settings'.")
    ],
    "profile": Annotated[str | None, typer.Option(help="AWS profile. Default: your environment's.")],
}
# Options with another name in `Call`.
_FIELDS = {"function": "function_name"}
_TARGET: dict[str, Any] = {
    **_STAGE,
    "secret_id": Annotated[str | None, typer.Option(help="A tenant's secret, instead of the stage's own.")],
    "database": Annotated[str | None, typer.Option(help="Another database on the same server.")],
    "schema": Annotated[str | None, typer.Option(help="The schema to migrate.")],
}


def examples(*commands: str) -> str:
    """Return the end of a command's help: its examples, one a line."""
    # "\b" keeps Click from joining the lines.
    return "\n\n".join(["Examples:", "\b\n" + "\n".join(f"  {command}" for command in commands)])


def at_stage(command: Callable[..., int]) -> Callable[..., int]:
    """Make a command's ``call`` from options: ``--stage``, ``--region`` and ``--profile``."""
    return _with(_STAGE, command)


def at_target(command: Callable[..., int]) -> Callable[..., int]:
    """Make a command's ``call`` from the options of a stage and of a tenant's database."""
    return _with(_TARGET, command)


# Typer has no options that commands share: each of the seventeen would repeat four to seven parameters.
def _with(options: dict[str, Any], command: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(command)
    def called(**given: Any) -> int:  # noqa: ANN401 - the command's own options
        return command(Call(**{_FIELDS.get(name, name): given.pop(name) for name in options}), **given)

    # Typer reads the options from this signature, in the order of the help.
    own = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "call"
    ]
    ours = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=None,
        )
        for name, annotation in options.items()
    ]
    signature = inspect.Signature([*ours[:2], *own, *ours[2:]], return_annotation=int)
    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    return called
