"""Resolves the two sets of distributions of a package separately: the function's own, and the backend's."""

from __future__ import annotations

import contextlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from infra.package.compatibility import (
    ENV_PY,
    MINORS,
    allows_from,
    bound,
    lines_for,
    requirement_lines,
)
from infra.package.errors import PackageError
from infra.package.package_platform import Platform, this_machine
from infra.package.requirements import NAME, PIN, is_source, required_name
from infra.package.uv_messages import conflict, names_without_wheels, place_that_failed
from infra.package.uv_tool import Index, run_uv

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from infra.package.requirements import Requirements

_CHECKOUT = Path(__file__).resolve().parents[2]
_OUR_LOCK = _CHECKOUT / "requirements.txt"
# The function's own libraries.
_FUNCTION = _CHECKOUT / "lambda_migrate" / "requirements.txt"

# Maximum number of retries without the distributions that lack a wheel: uv names one of them at a time.
_MOST_WITHOUT_WHEELS = 50

# The last release with pkg_resources, which older distributions import although they ask for any setuptools.
WITH_PKG_RESOURCES = "setuptools==80.9.0"

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
    """A resolved requirement: the normal form of its name, and its line with the hashes of its wheels.

    ``built`` is True if there is no wheel, so that it is built from source, without a compiler.
    """

    name: str
    line: str
    built: bool = False

    @property
    def version(self) -> str:
        """Return the version; empty if the line has an address instead."""
        found = PIN.match(self.line)
        return found[2] if found else ""


@dataclass(frozen=True)
class BackendPins:
    """The backend's distributions. ``warnings`` are about facts that its lock does not contain.

    ``aside`` are those without a wheel: sources, and those for which the resolver found none.
    """

    pins: tuple[Pin, ...]
    warnings: tuple[str, ...]
    aside: tuple[Pin, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all distributions, in their normal form."""
        return frozenset(pin.name for pin in (*self.pins, *self.aside))

    @property
    def drivers(self) -> tuple[str, ...]:
        """Return the PostgreSQL drivers among the distributions."""
        return tuple(driver for driver, any_of in _DRIVERS.items() if not self.names.isdisjoint(any_of))


class NoWheelError(PackageError):
    """Some of the pinned distributions have no wheel for the platform."""

    def __init__(self, pins: Sequence[Pin]) -> None:
        super().__init__(f"no wheel of {', '.join(pin.name for pin in pins)}")
        self.pins = tuple(pins)


def function_pins(platform: Platform) -> list[Pin]:
    """Return the function's own distributions, in the versions of our lock."""
    return _of_our_lock(requirement_lines(_FUNCTION), platform)


def pins_of_lambda(platform: Platform) -> list[Pin]:
    """Return substitutes for the distributions of Lambda's own Python."""
    return _of_our_lock(["boto3"], platform)


def _of_our_lock(lines: Sequence[str], platform: Platform) -> list[Pin]:
    return _compiled(lines, platform, Index(), preferred=_OUR_LOCK.read_text(encoding="utf-8"))


def backend_pins(requirements: Requirements, platform: Platform) -> BackendPins:
    """Return the distributions of the backend.

    Raises:
        PackageError: the lock is for another Python, contradicts itself, or is too old for the process of env.py.
    """
    applying = lines_for(platform, requirements)
    needed = [
        _as_elsewhere(line, requirements)
        for line in requirement_lines(ENV_PY)
        if required_name(line) not in set(map(required_name, applying))
    ]
    warnings: list[str] = []
    sources = [Pin(required_name(line), line, built=True) for line in applying if is_source(line)]
    applying = [line for line in applying if not is_source(line)]
    applying, binaries = _without_psycopg2(applying, requirements.lock, warnings)
    try:
        if requirements.locked:
            pins = _locked(applying)
            if binaries:
                twins, found = _with_sources(binaries, platform, requirements, "", ())
                pins, sources = pins + twins, sources + found
        else:
            pins, found = _resolved([*applying, *binaries], requirements, platform)
            sources += found
        if missing := [line for line in needed if required_name(line) not in {pin.name for pin in (*pins, *sources)}]:
            pins += added(missing, pins, requirements, platform)[0]
        pins = _with_libpq(pins, requirements, platform, warnings)
    except PackageError as error:
        raise refusal(f"{requirements.lock.name} has no set of wheels for {platform}", error) from error
    warnings += [_about_a_missing(pin, requirements) for pin in pins if pin.name in set(map(required_name, needed))]
    return BackendPins(tuple(pins), tuple(warnings), tuple(sources))


def _as_elsewhere(line: str, requirements: Requirements) -> str:
    """Return a requirement of env.py's process, at the version of another group or extra if that is new enough."""
    version = requirements.elsewhere.get(required_name(line), "")
    return f"{required_name(line)}=={version}" if version and allows_from(f"x=={version}", bound(line)) else line


def _about_a_missing(pin: Pin, requirements: Requirements) -> str:
    has = f"the package has {pin.name} {pin.version}"
    if requirements.elsewhere.get(pin.name) == pin.version:
        has_only = f"{has}, which {requirements.lock.name} has only in"
        if extra := requirements.extra_with(lambda name: name == pin.name):
            return (
                f"{has_only} the extra {extra} or another group; if env.py or the revisions need more of that extra,"
                f" name it in the setting `extras` (for make package: EXTRAS={extra})"
            )
        return (
            f"{has_only} another group or extra; if env.py or the revisions need more of that group or extra, name it"
            " in the setting `dependency_group` or `extras`"
        )
    return f"{requirements.lock.name} does not have {pin.name}, so {has}; lock it"


def refusal(what: str, error: PackageError) -> PackageError:
    """Return uv's error in one line: an unreadable place, or a conflict."""
    place = place_that_failed(error)
    return PackageError(place or f"{what}: {conflict(error)}", error.details)


def install(pins: Sequence[Pin], platform: Platform, directory: Path, index: Index) -> None:
    """Install pinned distributions into a folder.

    Raises:
        NoWheelError: some have no wheel for the platform, and nothing was installed.
        PackageError: anything else is wrong with them.
    """
    # With links into uv's cache, a change of an installed file would change other installations.
    command = ["pip", "install", "--target", str(directory), "--no-deps", "--link-mode", "copy"]
    command += ["--no-compile-bytecode", *platform.uv_options()]
    if all("--hash" in pin.line for pin in pins):
        command += ["--require-hashes"]
        if "index-strategy" not in index.settings:
            # The hash identifies the distribution, so any index may provide it.
            command += ["--index-strategy", "unsafe-best-match"]
    try:
        _with_pins(pins, command, index)
    except PackageError as error:
        if lacking := _lacking(pins, error, command, index):
            raise NoWheelError(lacking) from error
        raise refusal(f"the locked distributions cannot be installed for {platform}", error) from error


def _with_pins(pins: Sequence[Pin], command: Sequence[str], index: Index) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "resolved.txt")
        file.write_text("\n".join((*index.options, *(pin.line for pin in pins))), encoding="utf-8")
        try:
            run_uv(*command, "--requirements", str(file), "--offline", index=index)
        except PackageError:
            run_uv(*command, "--requirements", str(file), index=index)


def _lacking(pins: Sequence[Pin], error: PackageError, command: Sequence[str], index: Index) -> list[Pin]:
    """Return the pins without a wheel. uv names one of them, so the others are tried again until all have wheels."""
    rest, lacking = list(pins), list[Pin]()
    for _ in range(_MOST_WITHOUT_WHEELS):
        names = set(map(canonicalize_name, names_without_wheels(error)))
        found = [pin for pin in rest if pin.name in names]
        if not found:
            break
        lacking += found
        rest = [pin for pin in rest if pin not in found]
        try:
            _with_pins(rest, [*command, "--dry-run"], index)
        except PackageError as another:
            error = another
        else:
            break
    return lacking


def minors_with_wheels(pins: Sequence[Pin], platform: Platform, index: Index) -> list[int]:
    """Return the other Pythons, 13 for 3.13, for which all of these distributions have a wheel."""
    found = []
    for minor in MINORS:
        if minor == platform.minor:
            continue
        other = Platform(f"3.{minor}", platform.architecture) if platform.architecture else this_machine(minor)
        command = ["pip", "install", "--dry-run", "--no-deps", "--target", "/nowhere", *other.uv_options()]
        try:
            _with_pins(pins, command, index)
        except PackageError:
            continue
        found.append(minor)
    return found


def _locked(lines: Iterable[str]) -> list[Pin]:
    """Return the pins of a whole lock, without their markers, which are already evaluated."""
    pins = (Pin(required_name(line), re.sub(r"\s+;.*?(?=\s+--hash|$)", "", line)) for line in lines)
    return sorted(pins, key=lambda pin: pin.name)


def _resolved(lines: Sequence[str], requirements: Requirements, platform: Platform) -> tuple[list[Pin], list[Pin]]:
    """Return the pins of a requirements file. If a line allows several versions, our lock's version is preferred.

    The second list holds the distributions without a wheel, which the first list lacks.
    """
    pinned = [line for line in lines if PIN.match(line)]
    preferred = "\n".join((*pinned, WITH_PKG_RESOURCES, _OUR_LOCK.read_text(encoding="utf-8")))
    wanted = [*lines, *requirement_lines(ENV_PY)]
    return _with_sources(wanted, platform, requirements, preferred, ())


def _with_sources(
    lines: Sequence[str], platform: Platform, requirements: Requirements, preferred: str, locked: Sequence[str]
) -> tuple[list[Pin], list[Pin]]:
    """Resolve lines together with the locked ones. The second list holds the distributions without a wheel."""
    aside: list[str] = []
    while True:
        # A marker that is never true removes a distribution, even if others require it.
        out = [f"{name} ; python_version < '0'" for name in (*aside, *requirements.exclude)]
        try:
            pins = _compiled(lines, platform, requirements.index, preferred, [*locked, *out])
        except PackageError as error:
            names = list(dict.fromkeys(map(canonicalize_name, names_without_wheels(error))))
            new = [name for name in names if name not in aside]
            if not new or len(aside) > _MOST_WITHOUT_WHEELS:
                raise
            aside += new
        else:
            theirs = {pin.name: pin.line for pin in _locked(lines)}
            return pins, [_source(name, theirs.get(name, name), requirements.index) for name in aside]


def _source(name: str, line: str, index: Index) -> Pin:
    """Return the pin of a distribution to build, with a version if there is one."""
    if not PIN.match(line):
        with contextlib.suppress(PackageError), tempfile.TemporaryDirectory() as scratch:
            wanted = Path(scratch, "wanted.txt")
            wanted.write_text("\n".join((*index.options, line)), encoding="utf-8")
            options = ["--no-deps", "--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url"]
            line = next(_read_pins(run_uv("pip", "compile", str(wanted), *options, index=index))).line
    return Pin(name, line, built=True)


def added(
    lines: Sequence[str], pins: Sequence[Pin], requirements: Requirements, platform: Platform
) -> tuple[list[Pin], list[Pin]]:
    """Return the pins that a whole lock lacks. Its own pins stay unchanged.

    The second list holds the distributions without a wheel.
    """
    locked = [pin.line.partition(" --hash")[0] for pin in pins if not pin.built]
    locked += [f"{pin.name} ; python_version < '0'" for pin in pins if pin.built]
    preferred = _OUR_LOCK.read_text(encoding="utf-8")
    found, sources = _with_sources(lines, platform, requirements, preferred, locked)
    return [pin for pin in found if pin.name not in {one.name for one in pins}], sources


def _without_psycopg2(lines: Sequence[str], lock: Path, warnings: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines without psycopg2, which has no wheels, and lines of psycopg2-binary, the same module."""
    theirs = [line for line in lines if required_name(line) == "psycopg2"]
    kept = [line for line in lines if required_name(line) != "psycopg2"]
    if not theirs or any(required_name(line) == "psycopg2-binary" for line in kept):
        return kept, []
    warnings.append(
        f"{lock.name} has psycopg2, which is built from source and has no wheels, so the package has psycopg2-binary in"
        " its place, the same version of the same module"
    )
    specifiers = (re.sub(r"\s*[;\\].*|\s+--hash.*", "", line) for line in theirs)
    return kept, [f"psycopg2-binary{line[len('psycopg2') :]}" for line in specifiers]


def _with_libpq(pins: list[Pin], requirements: Requirements, platform: Platform, warnings: list[str]) -> list[Pin]:
    """Return the pins. Wheels that contain libpq replace those that need the machine's libpq."""
    by_name = {pin.name: pin for pin in pins}
    if "psycopg" in by_name and not {"psycopg-binary", "psycopg-c"} & by_name.keys():
        version = by_name["psycopg"].version
        with_libpq = _compiled([f"psycopg-binary=={version}"], platform, requirements.index)
        warnings.append(
            f"{requirements.lock.name} has psycopg {version} without libpq, which Lambda lacks, so the package has"
            " psycopg-binary of that version, too; lock psycopg[binary]"
        )
        return [*pins, *with_libpq]
    return pins


def _compiled(
    lines: Sequence[str], platform: Platform, index: Index, preferred: str = "", overrides: Sequence[str] = ()
) -> list[Pin]:
    """Resolve requirements with uv. Raises `PackageError` if there is no such set of wheels."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted, overriding, resolved = (Path(scratch, name) for name in ("in.txt", "overrides.txt", "resolved.txt"))
        wanted.write_text("\n".join((*index.options, *lines)), encoding="utf-8")
        overriding.write_text("\n".join(overrides), encoding="utf-8")
        # uv prefers the versions, and keeps the hashes, that it finds in its output file.
        command = ["pip", "compile", str(wanted), "--output-file", str(resolved), "--generate-hashes"]
        command += ["--override", str(overriding), "--no-annotate", "--no-header", "--no-emit-index-url"]
        command += platform.uv_options()
        try:
            resolved.write_text(preferred, encoding="utf-8")
            run_uv(*command, "--offline", index=index)
            text = resolved.read_text(encoding="utf-8")
            if _pins(text) <= _pins(preferred):
                return list(_read_pins(text))
            # uv chose a version that `preferred` does not fix. Resolve online: the cache here must not decide it.
        except PackageError:
            pass  # not everything is cached
        resolved.write_text(preferred, encoding="utf-8")
        try:
            run_uv(*command, index=index)
        except PackageError as error:
            raise _about_the_index(error, command, index) from error
        return list(_read_pins(resolved.read_text(encoding="utf-8")))


def _about_the_index(error: PackageError, command: Sequence[str], index: Index) -> PackageError:
    """Return the error, or one that names the index that refused access: uv names it only with ``first-index``."""
    if "was not found in the package registry" in error.details and "index-strategy" in index.settings:
        try:
            run_uv(*command, "--index-strategy", "first-index", index=index)
        except PackageError as another:
            return another if place_that_failed(another) else error
    return error


def _read_pins(resolved: str) -> Iterator[Pin]:
    for line in re.sub(r"\\\n\s*", "", resolved).splitlines():
        if found := NAME.match(line):
            yield Pin(canonicalize_name(found[0]), line)


def _pins(text: str) -> set[tuple[str, str]]:
    return {(canonicalize_name(pin[1]), pin[2]) for pin in map(PIN.match, text.splitlines()) if pin}
