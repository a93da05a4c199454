"""The options that lead to a stage's function, and to a database, for every command that needs them."""

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
    """Return the stage, or the function's name that is given in its place."""
    function = context.params.get("function")
    if function is None and stage is None:
        raise UsageError(
            "Missing option '--stage'",
            advice="Say --stage STAGE, or --function NAME where there is no cdk.json."
            f" See: {context.command_path} --help",
        )
    if function is not None and stage not in {None, os.environ.get(_STAGE_VARIABLE)}:
        raise UsageError("--stage and --function are two ways to one function", advice="Say one of them.")
    return function or stage


_STAGE: dict[str, Any] = {
    "stage": Annotated[
        str | None,
        typer.Option(envvar=_STAGE_VARIABLE, callback=_check_place, help="The stage, one of those in cdk.json."),
    ],
    "function": Annotated[
        str | None, typer.Option(is_eager=True, help="The function's name, in place of a stage: needs no cdk.json.")
    ],
    "region": Annotated[
        str | None, typer.Option(help="AWS region; without it, the stage's of cdk.json or your settings'.")
    ],
    "profile": Annotated[str | None, typer.Option(help="AWS profile; without it, your environment's.")],
}
# Options that are called otherwise in `Call`.
_FIELDS = {"function": "function_name"}
_TARGET: dict[str, Any] = {
    **_STAGE,
    "secret_id": Annotated[str | None, typer.Option(help="Another secret than the stage's own: a tenant's.")],
    "database": Annotated[str | None, typer.Option(help="Another database on that server.")],
    "schema": Annotated[str | None, typer.Option(help="A schema to work in.")],
}


def examples(*commands: str) -> str:
    """Return the end of a command's help: commands to copy, one a line."""
    # "\b" keeps the help from filling the lines up.
    return "\n\n".join(["Examples:", "\b\n" + "\n".join(f"  {command}" for command in commands)])


def at_stage(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command's ``call`` be made from options: ``--stage``, ``--region`` and ``--profile``."""
    return _with(_STAGE, command)


def at_target(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command's ``call`` be made from options: those of a stage, and those of a tenant's database."""
    return _with(_TARGET, command)


def _with(options: dict[str, Any], command: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(command)
    def called(**given: Any) -> int:  # noqa: ANN401 - whatever the command's own options are
        return command(Call(**{_FIELDS.get(name, name): given.pop(name) for name in options}), **given)

    # What Typer reads the options from, in the order of the help.
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
