"""The Python and the processor that a package is built for."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from platform import machine
from typing import Literal

from infra.package.errors import PackageError

Architecture = Literal["arm64", "x86_64"]

# The names of pip and uv for Lambda's arm64 and x86_64.
_MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
# Lambda's images up to Python 3.11 are Amazon Linux 2 (glibc 2.26), from 3.12 on Amazon Linux 2023 (glibc 2.34).
_FIRST_ON_AMAZON_LINUX_2023 = 12


@dataclass(frozen=True)
class Platform:
    """The platform of a package. ``Platform()`` is this machine with this Python.

    ``python`` is a version such as ``"3.13"``. Both fields are set, or neither.
    """

    python: str | None = None
    architecture: Architecture | None = None

    def __post_init__(self) -> None:
        """Raise `PackageError` for a platform that Lambda does not have."""
        if (self.python is None) != (self.architecture is None):
            raise PackageError("a platform needs both a Python version and an architecture (or neither: this machine)")
        if self.python is not None and not re.fullmatch(r"3\.[1-9][0-9]", self.python):
            raise PackageError(f"{self.python!r} is no Python version of Lambda; write it like 3.13")
        if self.architecture is not None and self.architecture not in _MACHINES:
            raise PackageError(f"{self.architecture!r} is no architecture of Lambda; use arm64 or x86_64")

    def __str__(self) -> str:
        if self.python is None:
            return f"this machine's Python 3.{self.minor}"
        return f"Python {self.python} on {self.architecture}"

    @property
    def minor(self) -> int:
        """The 13 of Python 3.13."""
        return sys.version_info.minor if self.python is None else int(self.python.removeprefix("3."))

    def uv_options(self) -> list[str]:
        """Return the options with which ``uv pip`` chooses wheels for this platform."""
        options = ["--python", sys.executable, "--only-binary", ":all:"]
        if self.python is None or self.architecture is None:
            return options
        libc = "manylinux_2_34" if self.minor >= _FIRST_ON_AMAZON_LINUX_2023 else "manylinux2014"
        machine_and_libc = f"{_MACHINES[self.architecture]}-{libc}"
        return [*options, "--python-version", self.python, "--python-platform", machine_and_libc]


def this_machine(minor: int) -> Platform:
    """Return the platform of this machine with Python 3.``minor``: ``Platform()`` for the running Python."""
    if minor == sys.version_info.minor:
        return Platform()
    return Platform(f"3.{minor}", "arm64" if machine() in {"arm64", "aarch64"} else "x86_64")
