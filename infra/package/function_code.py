"""The function's own code in a package: its files, or their bytecode."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from infra.package.bytecode import compile_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.package.bytecode import Form, Interpreter
    from infra.package.imports import Files

_CHECKOUT = Path(__file__).resolve().parents[2]
_FUNCTION = "lambda_migrate"
_HANDLER = PurePosixPath(_FUNCTION, "handler.py")


def contains(path: PurePosixPath) -> bool:
    """Return whether a path in a package belongs to the function's own code."""
    return path.parts[0] == _FUNCTION


def files() -> Files:
    """Return the source files by their paths in a package."""
    # Not by `files_below`, which leaves out certificates: those of the servers are public and needed.
    found = {file.relative_to(_CHECKOUT): file for file in (_CHECKOUT / _FUNCTION).rglob("*") if file.is_file()}
    return {
        PurePosixPath(path): file
        for path, file in found.items()
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }


def write(package: Path, interpreter: Interpreter | None) -> None:
    """Write the code into a package: compiled by the interpreter, or as source without one."""
    for path, content in _content(interpreter).items():
        destination = package / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(content)


# Cached, because an app with several stages builds several packages in one process. Compiling these files takes a third
# of the processor time of a build.
@cache
def _content(interpreter: Interpreter | None) -> Mapping[PurePosixPath, bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        sources = files()
        for path, file in sources.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, root / path)
        if interpreter:
            compile_all(root, {str(path): _form(path) for path in sources if path.suffix == ".py"}, interpreter)
        written = (file for file in root.rglob("*") if file.is_file())
        return {PurePosixPath(file.relative_to(root)): file.read_bytes() for file in sorted(written)}


def _form(path: PurePosixPath) -> Form:
    # The sources would be a fortieth of the zipped package. The handler keeps its source for Lambda's console.
    return "whole" if path == _HANDLER else "bare"
