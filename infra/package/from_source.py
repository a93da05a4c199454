"""Builds distributions without a wheel if they are pure Python: in isolation, and without a compiler.

A module that is compiled here would not run in Lambda. Without a compiler, a distribution that needs one fails at once,
and one with an optional compiled module is built without it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from infra.package.bytecode import find_interpreter
from infra.package.errors import PackageError
from infra.package.requirements import PIN, is_source
from infra.package.uv_messages import place_that_failed
from infra.package.uv_tool import run_uv

if TYPE_CHECKING:
    from infra.package.package_platform import Platform
    from infra.package.resolving import Pin
    from infra.package.uv_tool import Index

# Wheels that were built without a compiler must not get into the cache of other projects.
CACHE = Path(__file__).resolve().parents[2] / ".local" / "cache" / "built"
_NO_COMPILER = dict.fromkeys(("CC", "CXX", "LDSHARED", "CARGO", "RUSTC", "FC"), "false")
_LONGEST_S = 300
_NATIVE = re.compile(r"\.(so|pyd|dylib|dll|a)(\.|$)")


class NotPureError(PackageError):
    """A distribution cannot be built without a compiler, or contains compiled code."""


def install_built(pin: Pin, platform: Platform, site: Path, index: Index) -> None:
    """Build a distribution and install it into a folder.

    Raises:
        NotPureError: the result is not pure Python, or there is none.
        PackageError: its source is not available.
    """
    interpreter = find_interpreter(platform)
    with tempfile.TemporaryDirectory() as scratch:
        built, wanted = Path(scratch, "site"), Path(scratch, "wanted.txt")
        wanted.write_text("\n".join((*index.options, pin.line)), encoding="utf-8")
        command = ["pip", "install", "--requirements", str(wanted), "--target", str(built), "--no-deps"]
        command += ["--link-mode", "copy", "--no-compile-bytecode", "--cache-dir", str(CACHE)]
        if "--hash" in pin.line:
            command += ["--require-hashes"]
        if interpreter:
            command += ["--python", interpreter.executable]
        if not is_source(pin.line):
            command += ["--no-binary", pin.name]
        try:
            run_uv(*command, index=index, environment=_NO_COMPILER, timeout_s=_LONGEST_S)
        except subprocess.TimeoutExpired:
            raise NotPureError(f"{pin.name} was not built in {_LONGEST_S} s") from None
        except PackageError as error:
            if place := place_that_failed(error):
                raise PackageError(place, error.details) from error
            raise NotPureError(f"{pin.name} cannot be built without a compiler", error.details) from error
        if native := next((path for path in built.rglob("*") if _NATIVE.search(path.name)), None):
            raise NotPureError(f"{pin.name} has compiled code: {native.name}")
        _forget_the_builder(built)
        shutil.copytree(built, site, dirs_exist_ok=True)


def _forget_the_builder(site: Path) -> None:
    """Remove the version of the build tool from the metadata, so that two builds give the same bytes."""
    for wheel in site.glob("*.dist-info/WHEEL"):
        lines = wheel.read_text(encoding="utf-8").splitlines(keepends=True)
        wheel.write_text("".join(line for line in lines if not line.startswith("Generator:")), encoding="utf-8")


def version_of(pin: Pin) -> str:
    """Return a pin in the usual form, such as ``docopt==0.6.2``, or its address."""
    found = PIN.match(pin.line)
    return f"{pin.name}=={found[2]}" if found else pin.line.partition(" --hash")[0].strip()
