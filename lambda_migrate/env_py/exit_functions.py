"""Runs the exit functions of the backend's own code, because the process of env.py ends without Python's own exit.

Those of libraries are left out: they close what ends with the process, and some wait for a server to do so.
"""

from __future__ import annotations

import atexit
import inspect
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _Ended(BaseException):
    """An exit function has called ``os._exit()``."""


def note_exit_functions(folder: Path) -> Callable[[], int]:
    """Note what code of this folder registers with `atexit` from now on. Return a function that runs it.

    The last one runs first. As in Python itself, an error of one is printed and changes nothing else. The returned
    function returns the exit code that one of them gave to ``os._exit()``, or 0.
    """
    registered: list[partial[Any]] = []
    register, unregister = atexit.register, atexit.unregister

    def noting_register(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:  # noqa: ANN401
        if _is_below(function, folder):
            registered.append(partial(function, *args, **options))
            return function
        return register(function, *args, **options)

    def noting_unregister(function: Callable[..., Any]) -> None:
        registered[:] = [each for each in registered if each.func != function]
        unregister(function)

    atexit.register, atexit.unregister = noting_register, noting_unregister  # type: ignore[assignment]
    return partial(_run, registered)


def _run(registered: list[partial[Any]]) -> int:
    """Run the functions, and return the exit code that one of them gave to ``os._exit()``, or 0.

    That function ends the others, as in Python itself, but not this process, which has to report how env.py ended.
    """
    exit_at_once, process = os._exit, os.getpid()

    def end(code: int) -> None:
        if os.getpid() != process:  # a fork of this process
            exit_at_once(code)
        raise _Ended(code)

    os._exit = end  # type: ignore[assignment]
    try:
        while registered:
            try:
                registered.pop()()
            except _Ended as ended:
                registered.clear()
                return int(ended.args[0])
            except BaseException as error:  # noqa: BLE001 - as Python itself
                print(f"{type(error).__name__} in an exit function: {error}", file=sys.stderr)  # noqa: T201
        return 0
    finally:
        os._exit = exit_at_once


def _is_below(function: Callable[..., Any], folder: Path) -> bool:
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    of_object = getattr(type(function), "__call__", None)  # noqa: B004 - its code, not whether it can be called
    code = getattr(function, "__code__", None) or getattr(of_object, "__code__", None)
    return code is not None and Path(code.co_filename).is_relative_to(folder)
