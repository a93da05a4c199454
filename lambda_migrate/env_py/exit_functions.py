"""Runs the exit functions of the backend's own code, because the process of env.py ends without Python's own exit.

Those of libraries are left out: they close what ends with the process, and some wait for a server to do so.
"""

from __future__ import annotations

import atexit
import inspect
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def run_exit_functions(folder: Path) -> Iterator[None]:
    """At the end, run what code of this folder has registered with `atexit`, the last one first.

    As in Python itself, an error of such a function is printed and changes nothing else.
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
    try:
        yield
    finally:
        while registered:
            try:
                registered.pop()()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - as Python itself
                print(f"{type(error).__name__} in an exit function: {error}", file=sys.stderr)  # noqa: T201


def _is_below(function: Callable[..., Any], folder: Path) -> bool:
    while isinstance(function, partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and Path(code.co_filename).is_relative_to(folder)
