"""Lambda's limit for a function's unpacked code: the distributions that are over it, and the error about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from infra.package import lock_readers
from infra.package.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from infra.package.distributions import Site
    from infra.package.resolving import Pin

LARGEST_PACKAGE = 262_144_000

_LARGEST_SHOWN = 5
# Wheels are compressed, and unpack to about three times their size.
_UNPACKED = 3
_PACKAGE_LESS = (
    "package less with the stage's setting dependency_group (a group of uv.lock that holds what migrations need) or"
    " requirements: traced (what they import; for make package: TRACED=1), or have a container image with"
    " packaging: image"
)
_PACKAGE_LESS_THAN_TRACED = (
    "the package has only what the trace found, so leave out what migrations do not need with the setting `exclude`"
    " (for make package: EXCLUDE=NAMES), or have a container image with packaging: image"
)


def too_large(pins: Iterable[Pin], lock: Path) -> dict[str, int]:
    """Return the largest distributions and their compressed sizes, if all wheels of a lock are over the limit.

    Without them, the others fit.
    """
    sizes = lock_readers.wheel_sizes(lock)
    known = {pin.name: sizes[pin.name, pin.version] for pin in pins if (pin.name, pin.version) in sizes}
    total = sum(known.values())
    found: dict[str, int] = {}
    if total > LARGEST_PACKAGE:
        for name in sorted(known, key=lambda name: -known[name]):
            if total * _UNPACKED > LARGEST_PACKAGE:
                found[name] = known[name]
                total -= known[name]
    return found


def check_wheels(needed: Mapping[str, int], *, is_traced: bool) -> None:
    """Refuse needed wheels that alone are over the limit, before they are downloaded."""
    total = sum(needed.values())
    if total > LARGEST_PACKAGE:
        largest = sorted(needed, key=lambda name: -needed[name])[:_LARGEST_SHOWN]
        listed = ", ".join(f"{name} ({_megabytes(needed[name])})" for name in largest)
        raise PackageError(
            f"the distributions that the migrations import have {_megabytes(total)} as compressed wheels, and Lambda"
            f" takes {_megabytes(LARGEST_PACKAGE)} of unpacked code; {_advice(is_traced=is_traced)};"
            f" the largest wheels: {listed}"
        )


def size_of(paths: Iterable[Path]) -> int:
    """Return the bytes of files and of the files in folders."""
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,)))
    return sum(file.stat().st_size for file in files if file.is_file())


def exceeded_by(paths: Iterable[Path]) -> bool:
    """Return whether files are over the limit."""
    return size_of(paths) > LARGEST_PACKAGE


def check(paths: Sequence[Path], site: Site, ours: Site, imported: Collection[str], *, is_traced: bool) -> None:
    """Refuse files that are over the limit, and list the largest distributions."""
    size = size_of(paths)
    if size <= LARGEST_PACKAGE:
        return
    theirs = {one: canonicalize_name(one.name) in imported for one in site.distributions}
    used = {**theirs, **dict.fromkeys(ours.distributions, True)}
    largest = sorted(used, key=lambda distribution: -distribution.size_bytes)[:_LARGEST_SHOWN]
    listed = ", ".join(
        f"{one.name} {one.version} ({_megabytes(one.size_bytes)}{'' if used[one] else ', never imported'})"
        for one in largest
    )
    raise PackageError(
        f"the package would be {_megabytes(size)}, and Lambda takes {_megabytes(LARGEST_PACKAGE)};"
        f" {_advice(is_traced=is_traced)}; the largest distributions: {listed}"
    )


def _advice(*, is_traced: bool) -> str:
    return _PACKAGE_LESS_THAN_TRACED if is_traced else _PACKAGE_LESS


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"
