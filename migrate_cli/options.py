"""The options that lead to a stage's function, and to a database, for every command that needs them."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from migrate_cli.actions import Call

if TYPE_CHECKING:
    from collections.abc import Callable

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and everything else to standard error.")]

_STAGE: dict[str, Any] = {
    "stage": Annotated[str, typer.Option(envvar="MIGRATE_STAGE", help="The stage, one of those in cdk.json.")],
    "region": Annotated[
        str | None, typer.Option(help="AWS region; without it, the stage's of cdk.json or your settings'.")
    ],
    "profile": Annotated[str | None, typer.Option(help="AWS profile; without it, your environment's.")],
}
_TARGET: dict[str, Any] = {
    **_STAGE,
    "secret_id": Annotated[str | None, typer.Option(help="Another secret than the stage's own: a tenant's.")],
    "database": Annotated[str | None, typer.Option(help="Another database on that server.")],
    "schema": Annotated[str | None, typer.Option(help="A schema to work in.")],
}


def at_stage(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command's ``call`` be made from options: ``--stage``, ``--region`` and ``--profile``."""
    return _with(_STAGE, command)


def at_target(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command's ``call`` be made from options: those of a stage, and those of a tenant's database."""
    return _with(_TARGET, command)


def _with(options: dict[str, Any], command: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(command)
    def called(**given: Any) -> int:  # noqa: ANN401 - whatever the command's own options are
        return command(Call(**{name: given.pop(name) for name in options}), **given)

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
            default=inspect.Parameter.empty if name == "stage" else None,
        )
        for name, annotation in options.items()
    ]
    signature = inspect.Signature([ours[0], *own, *ours[1:]], return_annotation=int)
    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    return called
