"""Compiles a package for its interpreter. ``/var/task`` is read-only, so each cold start would compile for a second.

Python loads the bytecode without a look at its source ("unchecked", PEP 552). So the time and the place at which the
package is unpacked do not matter. The same source gives the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import uv

from infra.package.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from infra.package.package_platform import Platform

# The folder into which Lambda unpacks a function. Tracebacks contain it.
RUNTIME_ROOT = "/var/task"
SCRIPT = Path(__file__).with_name("compile_files.py")

# The form of a file's bytecode: complete, beside the source, or without docstrings, instead of the source.
Form = Literal["whole", "bare"]

_ASK = "import sys; print('%d.%d.%d-%s' % sys.version_info[:4])"


@dataclass(frozen=True)
class Interpreter:
    """A Python of this machine; ``version`` is its whole version, such as 3.13.0."""

    executable: str
    version: str


def find_interpreter(platform: Platform) -> Interpreter | None:
    """Find a Python of this machine whose bytecode is the platform's, or None."""
    if platform.minor == sys.version_info.minor:
        version = "{}.{}.{}".format(*sys.version_info[:3])
        return Interpreter(sys.executable, version) if sys.version_info.releaselevel == "final" else None
    return _find(platform.minor)


@lru_cache
def _find(minor: int) -> Interpreter | None:
    for candidate in dict.fromkeys(_candidates(minor)):
        try:
            done = subprocess.run(
                [candidate, "-I", "-S", "-c", _ASK], capture_output=True, text=True, check=False, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        # The bytecode of a pre-release differs from that of the release.
        if done.returncode == 0 and (version := re.fullmatch(rf"(3\.{minor}\.\d+)-final\n", done.stdout)):
            return Interpreter(str(candidate), version[1])
    return None


def _candidates(minor: int) -> Iterator[Path]:
    """Yield the paths of possible Pythons: on the PATH, of pyenv and of uv."""
    name = f"python3.{minor}"
    for folder in map(Path, os.get_exec_path()):
        # pyenv has a shim for every Python, and it fails for those that are not selected.
        if folder.name == "shims":
            yield from _newest_first(folder.parent / "versions", f"3.{minor}.*/bin/{name}")
        elif (folder / name).is_file():
            yield folder / name
    found = subprocess.run([uv.find_uv_bin(), "python", "dir"], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        yield from _newest_first(Path(found.stdout.strip()), f"cpython-3.{minor}.*/bin/{name}")


def _newest_first(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], reverse=True)


def compile_all(root: Path, files: Mapping[str, Form], interpreter: Interpreter, folder: str = "") -> None:
    """Compile files below a root, with all processors. The bytes depend on nothing but the file.

    ``folder`` is the root's folder in the package, if it is not the package's own.
    """
    prefix = f"{RUNTIME_ROOT}/{folder}".rstrip("/")
    processors = os.cpu_count() or 1
    shares = [sorted(files.items())[first::processors] for first in range(processors)]
    with ThreadPoolExecutor(processors) as pool:
        for _ in pool.map(lambda share: _compile(root, share, interpreter, prefix), filter(None, shares)):
            pass


def _compile(root: Path, files: Sequence[tuple[str, Form]], interpreter: Interpreter, prefix: str) -> None:
    request = {"root": str(root), "prefix": prefix, "files": files}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [interpreter.executable, "-s", "-S", "-B", "-c", SCRIPT.read_text(encoding="utf-8")],
            input=json.dumps(request),
            cwd=empty,  # where it looks for modules first
            env={"PYTHONHASHSEED": "0", "PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise PackageError(f"{interpreter.executable} could not compile the package: {last}")
