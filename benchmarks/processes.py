"""The memory of a function's processes, from Linux."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_INTERVAL_S = 0.005
# Reading the mapped files is slower, and they change less often.
_FILES_EVERY = 10
_PARTS = 5


@dataclass
class Peak:
    """The highest values, in megabytes of 1,048,576 bytes.

    ``together`` is what Lambda would count: the processes' own memory, with shared memory counted once, and the files
    that they have mapped. ``highest`` adds each process's own peak with shared pages in each, which is too high.
    """

    together: float = 0.0
    highest: float = 0.0


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Measure a process and its children repeatedly, until the end of the context."""
    peak = Peak()
    ends = threading.Event()
    own_peaks: dict[int, float] = {}
    files: dict[str, float] = {}

    def look() -> None:
        looks = 0
        while True:
            last = ends.is_set()
            total = 0.0
            for one in [pid, *descendants(pid)]:
                # A process that has just ended has no memory.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
                    own_peaks[one] = max(own_peaks.get(one, 0.0), _fields(one, "status")["VmHWM"])
                    held = _fields(one, "smaps_rollup")
                    # Only forks share anonymous memory, so the proportional shares add up to the total.
                    total += held["Pss_Anon"]
                    if looks % _FILES_EVERY == 0 or last:
                        _see_files(one, files)
            peak.together = max(peak.together, total + sum(files.values()))
            if last:
                break
            looks += 1
            ends.wait(_INTERVAL_S)
        peak.highest = sum(own_peaks.values())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ends.set()
        thread.join()


def descendants(pid: int) -> list[int]:
    """Return the process ids of the living children of a process, and of theirs."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in map(int, (task / "children").read_text(encoding="ascii").split()):
                found += [child, *descendants(child)]
    return found


def _see_files(pid: int, files: dict[str, float]) -> None:
    """Record how much of each part of a file a process has in memory. Several processes share these pages."""
    part, held = "", 0.0
    for line in (_PROC / str(pid) / "smaps").read_text(encoding="utf-8").splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            # Address, permissions, offset, device, inode and path.
            part = f"{values[4]} {values[1]}" if len(values) == _PARTS and values[4].startswith("/") else ""
        elif name == "Rss:":
            held = int(values[0]) / 1024
        elif name == "Anonymous:" and part:
            # Pages that the process has written to do not belong to the file.
            files[part] = max(files.get(part, 0.0), held - int(values[0]) / 1024)


def _fields(pid: int, name: str) -> dict[str, float]:
    lines = (_PROC / str(pid) / name).read_text(encoding="utf-8").splitlines()
    parts = [line.split() for line in lines]
    return {part[0].rstrip(":"): int(part[1]) / 1024 for part in parts if part[-1] == "kB"}
