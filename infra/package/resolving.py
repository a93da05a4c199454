"""The two sets of distributions of a package, each resolved alone: the function's own, and the backend's."""

from __future__ import annotations

import platform
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.markers import InvalidMarker, Marker, default_environment

from infra.package.errors import PackageError
from infra.package.requirements import NAME, PIN, normal_name
from infra.package.uv_tool import Index, run_uv

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from infra.package.requirements import Requirements
    from infra.package.target import Target

_CHECKOUT = Path(__file__).resolve().parents[2]
_OUR_LOCK = _CHECKOUT / "requirements.txt"
# The function's own libraries, and what the process of env.py needs among the backend's.
_FUNCTION = _CHECKOUT / "lambda_migrate" / "requirements.txt"
_ENV_PY = _CHECKOUT / "lambda_migrate" / "env_py" / "requirements.txt"

_LOWER_BOUND = re.compile(r"([\w.-]+)\s*>=\s*([\w.]+)")
# A patch release that is at least as new as Lambda's own, for markers such as python_full_version < "3.11.3".
_ANY_PATCH = 99
_LONGEST_CONFLICT = 400

# The PostgreSQL drivers of SQLAlchemy by their module's name, the preferred one first, and the distributions that are
# enough to use them in Lambda, which has no libpq.
_DRIVERS = {
    "psycopg2": ("psycopg2-binary", "psycopg2"),
    "psycopg": ("psycopg-binary", "psycopg-c"),
    "asyncpg": ("asyncpg",),
    "pg8000": ("pg8000",),
}


@dataclass(frozen=True)
class Pin:
    """A resolved requirement: the normal form of its name, and its line with the hashes of its wheels."""

    name: str
    line: str

    @property
    def version(self) -> str:
        """Its version; empty if it is taken from an address."""
        found = PIN.match(self.line)
        return found[2] if found else ""


@dataclass(frozen=True)
class BackendPins:
    """The backend's distributions. ``warnings`` are lines about what its lock does not say."""

    pins: tuple[Pin, ...]
    warnings: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The distributions, in the normal form of their names."""
        return frozenset(pin.name for pin in self.pins)

    @property
    def drivers(self) -> tuple[str, ...]:
        """The PostgreSQL drivers among them."""
        return tuple(driver for driver, any_of in _DRIVERS.items() if not self.names.isdisjoint(any_of))


def function_pins(target: Target) -> list[Pin]:
    """Return the function's own distributions, in the versions of our lock."""
    return _of_our_lock(_requirement_lines(_FUNCTION), target)


def pins_of_lambda(target: Target) -> list[Pin]:
    """Return what stands for the distributions that Lambda's own Python has."""
    return _of_our_lock(["boto3"], target)


def _of_our_lock(lines: Sequence[str], target: Target) -> list[Pin]:
    return _compiled(lines, target, Index(), preferred=_OUR_LOCK.read_text(encoding="utf-8"))


def backend_pins(requirements: Requirements, target: Target) -> BackendPins:
    """Return the distributions of the backend.

    Raises:
        PackageError: the lock is for another Python, contradicts itself, or is too old for the process of env.py.
    """
    _refuse_a_python_that_is_too_old(requirements.lock, target)
    applying = [line for line in requirements.lines if _applies(line, target)]
    _refuse_what_markers_exclude(requirements, applying, target)
    _refuse_what_is_too_old(applying, requirements.lock)
    needed = [line for line in _requirement_lines(_ENV_PY) if _name(line) not in set(map(_name, applying))]
    warnings: list[str] = []
    applying, binaries = _without_psycopg2(applying, requirements.lock, warnings)
    try:
        if requirements.locked:
            pins = _locked(applying) + (_compiled(binaries, target, requirements.index) if binaries else [])
        else:
            pins = _resolved([*applying, *binaries], requirements, target)
        if missing := [line for line in needed if _name(line) not in {pin.name for pin in pins}]:
            added = _added(missing, pins, requirements, target)
            pins += added
        pins = _with_libpq(pins, requirements, target, warnings)
    except PackageError as error:
        raise PackageError(f"{requirements.lock.name} has no set of wheels for {target}: {_conflict(error)}") from error
    warnings += [
        f"{requirements.lock.name} does not have {pin.name}, so the package has {pin.name} {pin.version}; lock it"
        for pin in pins
        if pin.name in set(map(_name, needed))
    ]
    return BackendPins(tuple(pins), tuple(warnings))


def install(pins: Sequence[Pin], target: Target, directory: Path, index: Index) -> None:
    """Install pinned distributions into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "resolved.txt")
        file.write_text("\n".join((*index.options, *(pin.line for pin in pins))), encoding="utf-8")
        command = ["pip", "install", "--requirements", str(file), "--target", str(directory)]
        if all("--hash" in pin.line for pin in pins):
            command += ["--require-hashes"]
        # Links into uv's cache would let whoever changes a file change what others install.
        command += ["--no-deps", "--link-mode", "copy", "--no-compile-bytecode", *target.uv_options()]
        try:
            run_uv(*command, "--offline", index=index)
        except PackageError:
            try:
                run_uv(*command, index=index)
            except PackageError as error:
                raise PackageError(f"what is locked cannot be installed for {target}: {_conflict(error)}") from error


def _requirement_lines(file: Path) -> tuple[str, ...]:
    return tuple(line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))


def _locked(lines: Iterable[str]) -> list[Pin]:
    """Return the pins of a whole lock, without their markers, which were looked at."""
    pins = (Pin(_name(line), re.sub(r"\s+;.*?(?=\s+--hash|$)", "", line)) for line in lines)
    return sorted(pins, key=lambda pin: pin.name)


def _resolved(lines: Sequence[str], requirements: Requirements, target: Target) -> list[Pin]:
    """Return the pins of a requirements file, which may leave some open: then our lock is the preference."""
    pinned = [line for line in lines if PIN.match(line)]
    return _compiled(
        [*lines, *_requirement_lines(_ENV_PY)],
        target,
        requirements.index,
        preferred="\n".join((*pinned, _OUR_LOCK.read_text(encoding="utf-8"))),
    )


def _added(lines: Sequence[str], pins: Sequence[Pin], requirements: Requirements, target: Target) -> list[Pin]:
    """Return the pins of what a whole lock lacks, beside its pins, of which none changes."""
    locked = [pin.line.partition(" --hash")[0] for pin in pins]
    found = _compiled(lines, target, requirements.index, _OUR_LOCK.read_text(encoding="utf-8"), overrides=locked)
    return [pin for pin in found if pin.name not in {one.name for one in pins}]


def _without_psycopg2(lines: Sequence[str], lock: Path, warnings: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines without psycopg2, which has no wheels, and lines of psycopg2-binary, the same module."""
    theirs = [line for line in lines if _name(line) == "psycopg2"]
    kept = [line for line in lines if _name(line) != "psycopg2"]
    if not theirs or any(_name(line) == "psycopg2-binary" for line in kept):
        return kept, []
    warnings.append(
        f"{lock.name} has psycopg2, which is built from source and has no wheels, so the package has psycopg2-binary in"
        " its place, the same version of the same module"
    )
    specifiers = (re.sub(r"\s*[;\\].*|\s+--hash.*", "", line) for line in theirs)
    return kept, [f"psycopg2-binary{line[len('psycopg2') :]}" for line in specifiers]


def _with_libpq(pins: list[Pin], requirements: Requirements, target: Target, warnings: list[str]) -> list[Pin]:
    """Return the pins with the wheels that have libpq in them, in the place of those that want the machine's own."""
    by_name = {pin.name: pin for pin in pins}
    if "psycopg" in by_name and not {"psycopg-binary", "psycopg-c"} & by_name.keys():
        version = by_name["psycopg"].version
        with_libpq = _compiled([f"psycopg-binary=={version}"], target, requirements.index)
        warnings.append(
            f"{requirements.lock.name} has psycopg {version} without libpq, which Lambda lacks, so the package has"
            " psycopg-binary of that version, too; lock psycopg[binary]"
        )
        return [*pins, *with_libpq]
    return pins


def _compiled(
    lines: Sequence[str], target: Target, index: Index, preferred: str = "", overrides: Sequence[str] = ()
) -> list[Pin]:
    """Resolve requirements with uv. Raises `PackageError` if there is no such set of wheels."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted, overriding, resolved = (Path(scratch, name) for name in ("in.txt", "overrides.txt", "resolved.txt"))
        wanted.write_text("\n".join((*index.options, *lines)), encoding="utf-8")
        overriding.write_text("\n".join(overrides), encoding="utf-8")
        # uv prefers the versions, and keeps the hashes, that it finds in its output file.
        command = ["pip", "compile", str(wanted), "--output-file", str(resolved), "--generate-hashes"]
        command += ["--override", str(overriding), "--no-annotate", "--no-header", "--no-emit-index-url"]
        command += target.uv_options()
        try:
            resolved.write_text(preferred, encoding="utf-8")
            run_uv(*command, "--offline", index=index)
            text = resolved.read_text(encoding="utf-8")
            if _pins(text) <= _pins(preferred):
                return list(_read_pins(text))
            # Something was free to choose: what this machine happens to have cached must not decide it.
        except PackageError:
            pass  # not everything is cached
        resolved.write_text(preferred, encoding="utf-8")
        run_uv(*command, index=index)
        return list(_read_pins(resolved.read_text(encoding="utf-8")))


def _read_pins(resolved: str) -> Iterator[Pin]:
    for line in re.sub(r"\\\n\s*", "", resolved).splitlines():
        if found := NAME.match(line):
            yield Pin(normal_name(found[0]), line)


def _conflict(error: PackageError) -> str:
    """Return the part of uv's words that says what contradicts what, without its proof."""
    text = re.sub(r"^No solution found.*?: ", "", str(error)).removeprefix("cause: ")
    text = text.removeprefix("No solution found when resolving dependencies ").lstrip("╰─▶ ")
    if len(text) <= _LONGEST_CONFLICT:
        return text
    # The proof ends with what it comes to, and then come hints.
    proof, _, hints = text.partition(" hint: ")
    last = proof[-_LONGEST_CONFLICT:].partition(" ")[2]
    return f"... {last}{f' ({hints[:_LONGEST_CONFLICT]})' if hints and len(last) < _LONGEST_CONFLICT // 2 else ''}"


def _pins(text: str) -> set[tuple[str, str]]:
    return {(normal_name(pin[1]), pin[2]) for pin in map(PIN.match, text.splitlines()) if pin}


def _name(line: str) -> str:
    found = NAME.match(line)
    return normal_name(found[0]) if found else ""


def _marker(line: str) -> Marker | None:
    text = re.sub(r"\s--hash.*", "", line)
    _, separator, marker = text.partition(" ;") if " ;" in text else text.partition(";")
    if not separator or not NAME.match(line):
        return None
    try:
        return Marker(marker.strip())
    except InvalidMarker as error:
        raise PackageError(f"{line.partition(';')[0].strip()} has a marker that cannot be read: {error}") from error


def _applies(line: str, target: Target) -> bool:
    marker = _marker(line)
    return marker is None or marker.evaluate(_environment(target))


def _environment(target: Target, minor: int | None = None) -> dict[str, str]:
    """Return what markers are about, for this target, or for it with another Python."""
    here = {name: str(value) for name, value in default_environment().items()}
    if target.python is None and minor is None:
        return {**here, "extra": ""}
    version = f"3.{target.minor if minor is None else minor}"
    machine = {"arm64": "aarch64", None: platform.machine()}.get(target.architecture, target.architecture or "")
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


def _refuse_what_markers_exclude(requirements: Requirements, applying: Sequence[str], target: Target) -> None:
    """Refuse a lock of which nothing, or not what env.py's process needs, is for the target."""
    kept = set(map(_name, applying))
    named = requirements.names
    needed = {_name(line) for line in _requirement_lines(_ENV_PY)} & named
    if not named or (kept and needed <= kept):
        return
    lost = sorted(needed - kept) or sorted(named)
    about = [line for line in requirements.lines if _name(line) in lost]
    fitting = [minor for minor in range(10, 15) if any(_holds(line, target, minor) for line in about)]
    runtimes = " or ".join(f"python3.{minor}" for minor in fitting)
    advice = f"build for {runtimes} (the stage's setting `runtime`)" if fitting else "lock it for this Python"
    raise PackageError(
        f"{requirements.lock.name} has {', '.join(lost[:3])} for other Pythons or machines only, by its markers, but"
        f" the package is for {target}; {advice}"
    )


def _holds(line: str, target: Target, minor: int) -> bool:
    marker = _marker(line)
    return marker is None or marker.evaluate(_environment(target, minor))


def _refuse_what_is_too_old(lines: Sequence[str], lock: Path) -> None:
    ours = map(_LOWER_BOUND.match, _requirement_lines(_ENV_PY))
    bounds = {normal_name(bound[1]): bound[2] for bound in ours if bound}
    for pin in filter(None, map(PIN.match, lines)):
        name, version = normal_name(pin[1]), pin[2]
        if name in bounds and _release(version) < _release(bounds[name]):
            raise PackageError(
                f"{lock.name} pins {name}=={version}, but the function needs {name}>={bounds[name]}; "
                f"upgrade {name} in the backend"
            )


def _refuse_a_python_that_is_too_old(lock: Path, target: Target) -> None:
    # Markers that hold for every Python of the lock are not in it: for an older one it pins the wrong versions.
    needed = re.search(r'^requires-python = "[^"]*>=\s*3\.(\d+)', lock.read_text(encoding="utf-8"), re.MULTILINE)
    if needed and int(needed[1]) > target.minor:
        raise PackageError(
            f"{lock.name} is for Python 3.{needed[1]} and later, but the package is for {target}; "
            "build for a later Python, or lower requires-python in the backend and lock again"
        )


def _release(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
