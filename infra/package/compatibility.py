"""Decides whether the backend's lock fits the package's platform, and which of its lines apply there."""

from __future__ import annotations

import contextlib
import platform as this_platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.markers import InvalidMarker, Marker, default_environment
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from infra.package.bytecode import find_interpreter
from infra.package.errors import PackageError
from infra.package.package_platform import Platform, this_machine
from infra.package.requirements import NAME, PIN, required_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.package.requirements import Requirements

# The libraries that the process of env.py needs.
ENV_PY = Path(__file__).resolve().parents[2] / "lambda_migrate" / "env_py" / "requirements.txt"

# A patch release that is at least as new as Lambda's own, for markers such as python_full_version < "3.11.3".
_ANY_PATCH = 99
# The runtimes that a stage may have, as in infra.stages.
MINORS = range(11, 15)
# The oldest SQLAlchemy 2 that Python 3.13 and later can import.
_SQLALCHEMY_FOR_3_13 = Version("2.0.31")
_REFUSES_OLD_SQLALCHEMY = 13


def lines_for(platform: Platform, requirements: Requirements) -> list[str]:
    """Return the lines of the backend's lock that apply to a platform.

    Raises:
        PackageError: the lock is for another Python, or too old for the process of env.py.
    """
    _refuse_another_python(requirements, platform)
    applying = [line for line in requirements.lines if _applies(line, platform)]
    _refuse_what_markers_exclude(requirements, applying, platform)
    _refuse_what_is_too_old(applying, requirements.lock)
    _refuse_what_is_too_old_for(platform, applying, requirements.lock)
    return applying


def requirement_lines(file: Path) -> tuple[str, ...]:
    """Return the requirements in a file, without its comments."""
    return tuple(line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))


def _marker(line: str) -> Marker | None:
    text = re.sub(r"\s--hash.*", "", line)
    _, separator, marker = text.partition(" ;") if " ;" in text else text.partition(";")
    if not separator or not NAME.match(line):
        return None
    try:
        return Marker(marker.strip())
    except InvalidMarker as error:
        raise PackageError(f"{line.partition(';')[0].strip()} has a marker that cannot be read: {error}") from error


def _applies(line: str, platform: Platform, minor: int | None = None) -> bool:
    """Return whether a line's marker holds for this platform, or for it with another Python."""
    marker = _marker(line)
    return marker is None or marker.evaluate(environment_of(platform, minor))


def environment_of(platform: Platform, minor: int | None = None) -> dict[str, str]:
    """Return the values that markers compare, for this platform, or for it with another Python."""
    here = {name: str(value) for name, value in default_environment().items()}
    if platform.python is None and minor is None:
        return {**here, "extra": ""}
    version = f"3.{platform.minor if minor is None else minor}"
    machine = {"arm64": "aarch64", None: this_platform.machine()}.get(
        platform.architecture, platform.architecture or ""
    )
    return {
        **here,
        "extra": "",
        "implementation_name": "cpython",
        "implementation_version": f"{version}.{_ANY_PATCH}",
        "os_name": "posix",
        "platform_machine": machine or "",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{version}.{_ANY_PATCH}",
        "python_version": version,
        "sys_platform": "linux",
    }


def _refuse_what_markers_exclude(requirements: Requirements, applying: Sequence[str], platform: Platform) -> None:
    """Refuse a lock whose markers exclude this platform, or exclude what env.py's process needs there."""
    kept = set(map(required_name, applying))
    named = requirements.names
    needed = {required_name(line) for line in requirement_lines(ENV_PY)} & named
    if not named or (kept and needed <= kept):
        return
    lost = sorted(needed - kept) or sorted(named)
    about = [line for line in requirements.lines if required_name(line) in lost]
    fitting = [minor for minor in MINORS if any(_applies(line, platform, minor) for line in about)]
    runtimes = " or ".join(f"python3.{minor}" for minor in fitting)
    advice = f"build for {runtimes} (the stage's setting `runtime`)" if fitting else "lock it for this Python"
    raise PackageError(
        f"the markers in {requirements.lock.name} exclude {', '.join(lost[:3])} for {platform}; {advice}"
    )


def _refuse_what_is_too_old(lines: Sequence[str], lock: Path) -> None:
    """Refuse a lock that allows only older versions than the process of env.py works with, and name all of them."""
    theirs, needed = list[str](), list[str]()
    for ours in map(Requirement, requirement_lines(ENV_PY)):
        for line in lines:
            if required_name(line) == canonicalize_name(ours.name) and not allows_from(line, bound(str(ours))):
                theirs.append(re.sub(r"\s*[;\\].*|\s+--hash.*", "", line))
                needed.append(str(ours))
    if theirs:
        raise PackageError(
            f"{lock.name} has {' and '.join(theirs)}, but the function needs {' and '.join(needed)}; upgrade"
            f" {'it' if len(theirs) == 1 else 'them'} in the backend and lock again"
        )


def _refuse_what_is_too_old_for(platform: Platform, lines: Sequence[str], lock: Path) -> None:
    """Refuse an SQLAlchemy whose wheels fit any Python, but that this Python cannot import."""
    locked = next(
        (found[2] for line in lines if required_name(line) == "sqlalchemy" and (found := PIN.match(line))), ""
    )
    try:
        is_old = Version("2.0") <= Version(locked) < _SQLALCHEMY_FOR_3_13
    except InvalidVersion:
        return  # it is not pinned: ==2.0.* allows newer ones
    if is_old and platform.minor >= _REFUSES_OLD_SQLALCHEMY:
        raise PackageError(
            f"{lock.name} has sqlalchemy {locked}, which cannot be imported in Python 3.13 and later, and the package"
            f" is for {platform}; build for Python 3.12 (the stage's setting `runtime`: python3.12, or"
            f" PYTHON_VERSION=3.12), or lock sqlalchemy {_SQLALCHEMY_FOR_3_13} or later"
        )


def bound(line: str) -> str:
    """Return the oldest release that a requirement of env.py's process allows."""
    [bound] = Requirement(line).specifier
    return bound.version


def allows_from(line: str, oldest: str) -> bool:
    """Return whether a requirement allows any release from this one on."""
    if pin := PIN.match(line):
        with contextlib.suppress(InvalidVersion):  # such as ==1.4.*
            return Version(pin[2]) >= Version(oldest)
    specifiers = re.search(r"[<>=!~].*", re.sub(r"\s*[;\\@].*|\s+--hash.*", "", line))
    try:
        allowed = SpecifierSet(specifiers[0] if specifiers else "")
        bounds = [oldest, *(each.version.removesuffix(".*") for each in allowed)]
        # If the range allows a version >= oldest, it allows one of its bounds or the release after a bound.
        releases = [Version(text) for bound in bounds for text in (bound, f"{bound}.1")]
    except (InvalidSpecifier, InvalidVersion):
        return True  # uv reports the error
    return any(allowed.contains(each, prereleases=True) for each in releases if each >= Version(oldest))


def _refuse_another_python(requirements: Requirements, platform: Platform) -> None:
    # A lock omits markers that hold for all its Pythons. For another Python it may pin wrong versions.
    if not requirements.python or allows(requirements.python, platform.minor):
        return
    fitting = [minor for minor in MINORS if allows(requirements.python, minor)]
    runtimes = " or ".join(f"3.{minor}" for minor in fitting)
    # The nearest and not the newest, because the newest Python may lack wheels.
    nearest = min(fitting, key=lambda minor: abs(minor - platform.minor), default=None)
    lower = re.fullmatch(r">=\s*3\.(\d+)", requirements.python)
    pythons = f"Python 3.{lower[1]} and later" if lower else f"Python {requirements.python.replace('||', ' or ')}"
    advice = (
        f"build for Python {runtimes} (the stage's setting `runtime`: python3.{nearest}, or PYTHON_VERSION=3.{nearest})"
        if fitting
        else f"Lambda's runtimes are 3.{MINORS[0]} to 3.{MINORS[-1]}: change the range in the backend and lock again"
    )
    if platform.python is None and fitting:
        advice += on_this_machine(fitting)
    raise PackageError(f"{requirements.lock.name} is for {pythons}, but the package is for {platform}; {advice}")


def on_this_machine(fitting: Sequence[int]) -> str:
    """Return advice to rebuild .venv, whose Python runs the local cloud's function, for one of these minors."""
    here = next((found for minor in fitting if (found := find_interpreter(this_machine(minor)))), None)
    python = here.executable if here else f"python3.{fitting[-1]}"
    return f"; for the local cloud, whose function runs with .venv: rm -rf .venv && make migrate PYTHON={python}"


def allows(pythons: str, minor: int) -> bool:
    """Return whether a range of Pythons, with ``||`` between alternatives, contains a patch release of 3.``minor``."""
    try:
        ranges = [SpecifierSet(one.strip()) for one in pythons.split("||")]
    except InvalidSpecifier:
        return True  # an unknown form: the wheels decide
    return any(one.contains(f"3.{minor}.{patch}") for one in ranges for patch in range(_ANY_PATCH + 1))
