"""How large is the deployed package?"""

from __future__ import annotations

import os
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import functions, histories
from benchmarks.histories import changes
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Outcome, interleaved
from benchmarks.suite import main
from infra.package.builder import build
from infra.package.package_platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.ground import Ground

QUESTION = "package_size"

_MEGABYTE = 2**20

_NAIVE = "naive handler"
_BARE = "bare script, no bytecode"
_UNPACKED = "unpacked"
_ZIPPED = "zipped"


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure it in one round, because sizes do not vary."""
    history = changes(effort.short)
    backend = ground.scratch / "backend-minimal"
    histories.write_alembic(backend, history)
    # Without requirements of the backend, only our part of the package remains.
    (backend / "requirements.txt").write_text("")
    ours = ground.scratch / "ours-minimal"
    build(backend, ours, Platform())
    packages = {
        OURS: ours,
        _NAIVE: functions.naive(ground, str(effort.short), history),
        _BARE: functions.bare(ground, str(effort.short), history, bytecode=False),
    }
    measured = interleaved(
        [
            Contestant(case, name, partial(_megabytes, of, package))
            for case, of in ((_UNPACKED, _size), (_ZIPPED, _zipped_size))
            for name, package in packages.items()
        ],
        1,
        "MB",
    )
    goals = (
        Goal(_UNPACKED, measured.median((_UNPACKED, OURS)), 30, "MB"),
        Goal(_ZIPPED, measured.median((_ZIPPED, OURS)), 9, "MB"),
    )
    return Outcome(
        QUESTION,
        f"Size of the package, {effort.short:,} revisions, no requirements of the backend's own",
        measured.rows(),
        goals,
        ("Zipped with deflate at level 9; a megabyte is 1,048,576 bytes, as Lambda counts.",),
    )


def _megabytes(of: Callable[[Path], int], package: Path) -> float:
    return of(package) / _MEGABYTE


def _size(package: Path) -> int:
    return sum(path.stat().st_size for path in _files(package))


def _zipped_size(package: Path) -> int:
    archive = package.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for path in _files(package):
            file.write(path, path.relative_to(package))
    size = archive.stat().st_size
    archive.unlink()
    return size


def _files(package: Path) -> list[Path]:
    """Yield every file, also of distributions that are links."""
    walked = os.walk(package, followlinks=True)
    return sorted(Path(folder, name) for folder, _, names in walked for name in names)


if __name__ == "__main__":
    main(measure)
