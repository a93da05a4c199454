"""How long does the build of the package take, and is it reproducible?"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import functions
from benchmarks.ground import ROOT
from benchmarks.histories import changes
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Outcome, interleaved
from benchmarks.suite import main

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.ground import Ground

QUESTION = "package_build"

_INSTALL = "uv pip install --target"


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants, and compare them with the goals."""
    backend = functions.backend(ground, str(effort.long), changes(effort.long))
    built: list[Path] = []

    def build() -> float:
        # A new folder for each build: for seconds after a deletion of many files, ext4 creates files at half the speed.
        built.append(ground.scratch / f"built-{len(built)}")
        return _seconds(sys.executable, "-m", "infra.package", str(backend), str(built[-1]))

    def install() -> float:
        # The naive package's installation, which is a part of ours.
        target = str(ground.scratch / f"install-{time.monotonic_ns()}")
        return _seconds(
            "uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--link-mode", "copy",
            "--python", sys.executable, "--target", target, "--requirements", str(ROOT / "benchmarks" / "naive.txt"),
        )  # fmt: skip

    warm = f"warm, {effort.long:,} revisions"
    measured = interleaved([Contestant(warm, OURS, build), Contestant(warm, _INSTALL, install)], effort.rounds)
    if len(built) == 1:
        build()
    first, second = map(_contents, built[:2])
    differing = sum(first.get(path) != second.get(path) for path in {*first, *second})
    goals = (
        Goal("warm", measured.median((warm, OURS)), 2, "s"),
        Goal("files that differ between two builds", differing, 0, "files"),
    )
    return Outcome(
        QUESTION,
        "Building the package",
        measured.rows(),
        goals,
        ("Warm: the distributions are in uv's cache. Measured: the whole command of `make package`.",),
    )


def _seconds(*command: str) -> float:
    # Each build writes thousands of files. Without this, the next one would wait until they are stored.
    os.sync()
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr}")
    return took


def _contents(package: Path) -> dict[str, tuple[int, str]]:
    """Return the mode and content of each file."""
    return {
        path.relative_to(package).as_posix(): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in package.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    main(measure)
