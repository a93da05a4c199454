"""How much memory a sandbox's processes take, as Linux tells it."""

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


@dataclass
class Peak:
    """The most that was seen, in megabytes of 1,048,576 bytes.

    ``together`` is what Lambda would count: the first process's resident memory, and of each that it forked what it
    does not share. ``highest`` adds up each process's own peak, shared pages in each: more than there ever was.
    """

    together: float = 0.0
    highest: float = 0.0


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Look at a process and what it starts, again and again, until the end of the context."""
    peak = Peak()
    ends = threading.Event()
    own_peaks: dict[int, float] = {}

    def look() -> None:
        while True:
            last = ends.is_set()
            family = [pid, *_descendants(pid)]
            total = 0.0
            for one in family:
                # One that has just ended has no memory any more.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
                    own_peaks[one] = max(own_peaks.get(one, 0.0), _fields(one, "status")["VmHWM"])
                    held = _fields(one, "smaps_rollup")
                    total += held["Rss"] if one == pid else held["Private_Clean"] + held["Private_Dirty"]
            peak.together = max(peak.together, total)
            if last:
                break
            ends.wait(_INTERVAL_S)
        peak.highest = sum(own_peaks.values())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ends.set()
        thread.join()


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in map(int, (task / "children").read_text(encoding="ascii").split()):
                found += [child, *_descendants(child)]
    return found


def _fields(pid: int, name: str) -> dict[str, float]:
    lines = (_PROC / str(pid) / name).read_text(encoding="utf-8").splitlines()
    parts = [line.split() for line in lines]
    return {part[0].rstrip(":"): int(part[1]) / 1024 for part in parts if part[-1] == "kB"}
