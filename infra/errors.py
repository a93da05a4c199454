"""Errors of a stage's settings: one line with the path of the wrong key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from pydantic import ValidationError


class StageError(Exception):
    """cdk.json or the context names no usable stage. The message is one line with the path of the wrong key."""


def invalid(message: str, *, key: str = "") -> PydanticCustomError:
    """Return an error of several keys together. pydantic adds the path of their object, and `problem` adds the key."""
    # The message contains no braces, so pydantic does not format it.
    return PydanticCustomError("combination", message, {"key": key})


def problem(error: ValidationError, *within: str) -> str:
    """Return one line: the path of the first wrong or unknown key, and the valid values."""
    first = error.errors(include_url=False, include_input=False)[0]
    meant = (first.get("ctx") or {}).get("key")
    parts = [*within, *(str(part) for part in first["loc"] if part != "[key]"), *([meant] if meant else [])]
    path = ".".join(parts)
    message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return f"{path}: {message}" if path else message
