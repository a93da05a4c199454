"""The distributions of a package: the backend's lock and our own requirements, resolved into one set and installed."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uv

from infra.package.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from infra.package.target import Target

_CHECKOUT = Path(__file__).resolve().parents[2]
# Lower bounds of what the function imports, and the versions of ours that are taken where the backend locks none.
_FUNCTION = _CHECKOUT / "lambda_migrate" / "requirements.txt"
_OUR_LOCK = _CHECKOUT / "requirements.txt"

_UNREAD_LOCKS = ("poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_PIN = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*==\s*([^\s;\\,]+)")
_LOWER_BOUND = re.compile(r"([\w.-]+)\s*>=\s*([\w.]+)")
_INCLUDE = re.compile(r"(-r|-c|--requirement|--constraint)[ =]+(\S+)")
_LOCAL = re.compile(r"(?:-e\s+|--editable[ =]+)?((?:\.|/|file:).*?)(?:\s+;.*)?")
_BY_URL = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*@\s*(\S+).*")


@dataclass(frozen=True)
class Requirements:
    """What a backend requires: lines of a requirements file, and folders of distributions that lie beside it."""

    backend: Path
    lock: Path
    lines: tuple[str, ...]
    local_packages: tuple[Path, ...]

    @property
    def names(self) -> frozenset[str]:
        """The distributions that the lines are about, in the normal form of their names."""
        return frozenset(normal_name(found[0]) for found in map(_NAME.match, self.lines) if found)


@dataclass(frozen=True)
class Pin:
    """A resolved requirement: the normal form of its name, and its line with the hashes of its wheels."""

    name: str
    line: str


def read_requirements(backend: Path, group: str | None = None) -> Requirements:
    """Read a backend's ``uv.lock``, or one of its dependency groups alone, or else its ``requirements.txt``.

    Raises `PackageError` if there is neither, if it is older than what the function needs, or if it takes a
    distribution from where there is no wheel.
    """
    lock = _lock_of(backend)
    if lock.name == "uv.lock":
        chosen = ["--only-group", group] if group else ["--no-dev"]
        text = _uv("export", "--frozen", *chosen, "--no-emit-project", "--no-annotate", "--no-header", cwd=backend)
    elif group:
        raise PackageError(f"dependency_group is for a uv.lock, and {backend} has none; write one with: uv lock")
    else:
        text = lock.read_text(encoding="utf-8")
    lines: list[str] = []
    local_packages: list[Path] = []
    for line in _logical_lines(text):
        if include := _INCLUDE.fullmatch(line):
            lines.append(f"{include[1]} {lock.parent / include[2]}")
        elif folder := _local_package(line, lock):
            if folder != backend:
                local_packages.append(folder)
        else:
            lines.append(line)
    _refuse_what_is_too_old(lines, lock)
    return Requirements(backend, lock, tuple(lines), tuple(local_packages))


def resolve(requirements: Requirements, target: Target) -> list[Pin]:
    """Return what the package holds, pinned.

    The backend's pins are requirements, so they win; our lock is a preference for what is left open.
    Raises `PackageError` if there is no such set, or no wheel for the target.
    """
    _refuse_a_python_that_is_too_old(requirements.lock, target)
    with tempfile.TemporaryDirectory() as scratch:
        theirs, resolved = Path(scratch, "backend.txt"), Path(scratch, "resolved.txt")
        theirs.write_text("\n".join(requirements.lines), encoding="utf-8")
        # uv prefers the versions, and keeps the hashes, that it finds in its output file.
        pinned = [line for line in requirements.lines if _PIN.match(line)]
        preferred = "\n".join((*pinned, _OUR_LOCK.read_text(encoding="utf-8")))
        command = ["pip", "compile", str(theirs), str(_FUNCTION), "--output-file", str(resolved), "--generate-hashes"]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url", *target.uv_options()]
        try:
            resolved.write_text(preferred, encoding="utf-8")
            _uv(*command, "--offline", cwd=requirements.backend)
            text = resolved.read_text(encoding="utf-8")
            if _pins(text) <= _pins(preferred):
                return _read_pins(text)
            # Something was free to choose: what this machine happens to have cached must not decide it.
        except PackageError:
            pass  # not everything is cached
        resolved.write_text(preferred, encoding="utf-8")
        try:
            _uv(*command, cwd=requirements.backend)
        except PackageError as error:
            raise PackageError(
                f"{requirements.lock.name} and the function's requirements have no common set of wheels for {target}: "
                f"{error}"
            ) from error
        return _read_pins(resolved.read_text(encoding="utf-8"))


def _read_pins(resolved: str) -> list[Pin]:
    lines = _logical_lines(resolved)
    return [Pin(normal_name(found[0]), line) for line in lines if (found := _NAME.match(line))]


def install(pins: Sequence[Pin], target: Target, directory: Path, *, cwd: Path) -> None:
    """Install pinned distributions into a folder. ``cwd`` is where uv looks for the backend's own indexes."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "resolved.txt")
        file.write_text("\n".join(pin.line for pin in pins), encoding="utf-8")
        command = ["pip", "install", "--requirements", str(file), "--target", str(directory), "--require-hashes"]
        # Links into uv's cache would let whoever changes a file change what others install.
        command += ["--no-deps", "--link-mode", "copy", "--no-compile-bytecode", *target.uv_options()]
        try:
            _uv(*command, "--offline", cwd=cwd)
        except PackageError:
            _uv(*command, cwd=cwd)


def _lock_of(backend: Path) -> Path:
    for lock in (backend / "uv.lock", backend / "requirements.txt"):
        if lock.is_file():
            return lock
    unread = next((name for name in _UNREAD_LOCKS if (backend / name).is_file()), None)
    # A member of a uv workspace is locked at the workspace's root.
    if unread is None and (backend / "pyproject.toml").is_file():
        for folder in backend.parents:
            if (folder / "uv.lock").is_file():
                return folder / "uv.lock"
    found = f" ({unread} is not read)" if unread else ""
    raise PackageError(f"no uv.lock and no requirements.txt in {backend}{found}; write one of them, e.g. with: uv lock")


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file without comments; one that a backslash continues is one line."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if stripped := re.sub(r"(^|\s)#.*", "", line).strip():
            yield stripped


def _local_package(line: str, lock: Path) -> Path | None:
    """Return the folder that a requirement is taken from, if it is; refuse what cannot be had as a wheel."""
    by_url = _BY_URL.fullmatch(line)
    local = _LOCAL.fullmatch(by_url[2] if by_url else line)
    if local:
        folder = (lock.parent / local[1].removeprefix("file://")).resolve()
        if folder.is_dir():
            return folder
    source = by_url[2] if by_url else local[1] if local else line
    wheel = source.partition("#")[0].endswith(".whl") and source.startswith("https://")
    if local or line.startswith("-e") or (by_url and not wheel):
        name = by_url[1] if by_url else "a distribution"
        raise PackageError(
            f"{lock.name} takes {name} from {source}, which is no folder here and no wheel on a server; "
            "publish it as a wheel and lock that"
        )
    return None


def _refuse_what_is_too_old(lines: Sequence[str], lock: Path) -> None:
    ours = map(_LOWER_BOUND.match, _FUNCTION.read_text(encoding="utf-8").splitlines())
    bounds = {normal_name(bound[1]): bound[2] for bound in ours if bound}
    for pin in filter(None, map(_PIN.match, lines)):
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


def _pins(text: str) -> set[tuple[str, str]]:
    return {(normal_name(pin[1]), pin[2]) for pin in map(_PIN.match, text.splitlines()) if pin}


def normal_name(name: str) -> str:
    """Return a distribution's name as the packaging specifications compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _uv(*arguments: str, cwd: Path) -> str:
    """Run uv and return what it prints. Raises `PackageError` with uv's own words, in one line."""
    done = subprocess.run(
        [uv.find_uv_bin(), *arguments, "--quiet", "--color", "never"],
        cwd=cwd,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PackageError(" ".join(done.stderr.removeprefix("error: ").split()) or f"uv ended with {done.returncode}")
    return done.stdout
