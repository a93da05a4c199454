"""Writes the backend's libraries into a package, from wheels or built from source.

A distribution without a wheel does not stop a build. It is built from source if it is pure Python and may be needed. If
that fails, it is left out, or the build is refused if the tree or another distribution needs it.

Large distributions do not stop a build either. If the package is over Lambda's limit, those that nothing imports are
left out.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.package import distributions, limit, own_folders
from infra.package.compatibility import allows, on_this_machine
from infra.package.errors import PackageError
from infra.package.from_source import NotPureError, version_of
from infra.package.import_graph import When
from infra.package.installed import LAMBDAS, Installed, may_provide, missing, surely
from infra.package.layout import BACKEND_LIBRARIES
from infra.package.resolving import WITH_PKG_RESOURCES, NoWheelError, added, minors_with_wheels
from infra.package.store import SETUPTOOLS
from infra.package.uv_messages import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from infra.package.distributions import Needs, Site
    from infra.package.import_graph import Foreign, Reached
    from infra.package.package_platform import Platform
    from infra.package.requirements import Requirements
    from infra.package.resolving import BackendPins, Pin

# The process of env.py needs these even if the backend does not import them.
_OF_ENV_PY = frozenset({"alembic", "sqlalchemy"})
_DRIVERS = frozenset({"asyncpg", "pg8000", "psycopg", "psycopg-binary", "psycopg-c", "psycopg2", "psycopg2-binary"})
_PSYCOPG2 = ("psycopg2", "psycopg2-binary")
# SQLAlchemy imports it for asyncio, by an extra that locks do not list.
_FOR_ASYNCIO = "greenlet"
# Libraries that are imported without their name in the code: time zones, and SQLAlchemy's drivers.
_BY_NAME = frozenset({*_DRIVERS, _FOR_ASYNCIO, "psycopg-pool", "tzdata"})
# The first part of a dotted name in a string or a configuration, as in class = pythonjsonlogger.json.JsonFormatter.
_IN_A_TEXT = re.compile(rb"""(?:["']|=\s*)([A-Za-z_]\w*)(?:\.\w+)+(?=["']|\s*$)""", re.MULTILINE)


@dataclass(frozen=True)
class Written:
    """The libraries in a package, with warnings about libraries that were left out.

    ``loaded`` are the libraries that the tree may load, ``drivers`` the PostgreSQL drivers.
    """

    site: Site
    installed: Installed
    pins: tuple[Pin, ...]
    loaded: frozenset[str]
    drivers: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Destination:
    """The package that gets the libraries, its platform, and the files of them that it needs."""

    package: Path
    platform: Platform
    needs: Needs
    requirements: Requirements

    def add(self, pins: Sequence[Pin]) -> Site:
        """Write distributions into the package. Raises `PackageError`."""
        index = self.requirements.index
        return distributions.write(pins, self.platform, self.package, BACKEND_LIBRARIES, self.needs, index)


def write(
    locked: BackendPins,
    reached: Reached,
    destination: Destination,
    *,
    omit_large_unused: bool = False,
    is_async: bool = True,
    is_traced: bool = False,
) -> Written:
    """Write the backend's libraries. Raises `PackageError` if a needed one is not available.

    With ``omit_large_unused``, distributions that are too large for Lambda are not downloaded if nothing needs them.
    ``is_async`` means that env.py uses asyncio, so the package needs greenlet and an async driver. ``is_traced`` means
    that a trace has chosen the distributions.
    """
    return _Writer(
        locked, reached, destination, omit_large_unused=omit_large_unused, is_async=is_async, is_traced=is_traced
    ).write()


def without_unused(written: Written, destination: Destination, texts: Iterable[bytes]) -> Written:
    """Write the libraries again, without those that nothing imports.

    ``texts`` are configuration files and modules whose strings may name modules, such as the class of a logger.
    """
    installed = written.installed
    named = {top.decode() for text in texts for top in _IN_A_TEXT.findall(text)}
    needed = written.loaded | installed.closure(installed.providers(named) | installed.plugins, certain=True)
    kept = [pin for pin in written.pins if pin.name in needed]
    unused = [pin for pin in written.pins if pin not in kept]
    if not unused:
        return written
    shutil.rmtree(destination.package / BACKEND_LIBRARIES)
    return replace(
        written, site=destination.add(kept), pins=tuple(kept), warnings=(*written.warnings, _about_unused(unused))
    )


def _about_unused(pins: Iterable[Pin]) -> str:
    return (
        "all distributions together are over Lambda's limit, so the package lacks those that neither env.py nor the"
        f" revisions nor their modules import: {listed([version_of(pin) for pin in pins])}; choose them yourself with"
        " the setting `requirements`: traced, `dependency_group` or `exclude`"
    )


class _Writer:
    def __init__(
        self,
        locked: BackendPins,
        reached: Reached,
        destination: Destination,
        *,
        omit_large_unused: bool,
        is_async: bool,
        is_traced: bool,
    ) -> None:
        self._is_async = is_async
        self._is_traced = is_traced
        self._locked = locked
        self._reached = reached
        self._destination = destination
        self._sizes = limit.too_large(locked.pins, destination.requirements.lock) if omit_large_unused else {}
        self._pins = [pin for pin in locked.pins if pin.name not in self._sizes]
        self._large = [pin for pin in locked.pins if pin.name in self._sizes]
        self._without_wheel = list(locked.aside)
        self._installed = Installed()
        self._site: Site | None = None
        self._reasons: dict[str, PackageError] = {}
        # The distributions for which setuptools was added.
        self._importers_of_pkg_resources: list[str] = []

    def write(self) -> Written:
        self._add_wheels(self._pins)
        while self._large and (needed := self._large_that_are_needed()):
            both = {pin.name for pin in (*self._pins, *needed)}
            sizes = {name: size for name, size in self._sizes.items() if name in both}
            limit.check_wheels(sizes, is_traced=self._is_traced)
            self._large = [pin for pin in self._large if pin not in needed]
            self._pins += needed
            self._add_wheels(needed)
        if self._without_wheel:
            self._build()
            self._refuse_missing_builds()
        self._add_undeclared()
        self._refuse_unresolved_imports()
        if self._site is None:  # pragma: no cover - env.py's process needs alembic
            raise PackageError(f"{self._destination.requirements.lock.name} has no distribution")
        loaded = frozenset(self._wanted())
        return Written(self._site, self._installed, tuple(self._pins), loaded, self._drivers, tuple(self._warnings()))

    def _add_wheels(self, pins: list[Pin]) -> None:
        """Add distributions, and collect those without a wheel."""
        try:
            self._add(pins)
        except NoWheelError as error:
            self._without_wheel += error.pins
            self._pins = [pin for pin in self._pins if pin not in error.pins]
            self._add([pin for pin in pins if pin not in error.pins])

    def _large_that_are_needed(self) -> list[Pin]:
        needed = self._loaded(surely(self._reached.foreign), certain=True) | _BY_NAME
        missing_ones = surely(self._missing())
        unknown = [one for one in missing_ones if not any(may_provide(pin.name, [one]) for pin in self._large)]
        return [pin for pin in self._large if unknown or pin.name in needed or may_provide(pin.name, missing_ones)]

    def _add(self, pins: list[Pin]) -> None:
        destination = self._destination
        if not pins and self._site:
            return
        site = destination.add(pins)
        self._installed.add(destination.package, site.owners, destination.platform)
        self._site = self._site.with_(site) if self._site else site

    def _build(self) -> None:
        """Build distributions that may be needed, then their requirements, until no more can be built."""
        while True:
            wanted = self._wanted()
            tried = [pin for pin in self._without_wheel if pin.name in wanted and pin.name not in self._reasons]
            if not tried:
                return
            for pin in tried:
                source = replace(pin, built=True)
                try:
                    self._add([source])
                except PackageError as error:
                    self._reasons[pin.name] = error
                else:
                    self._without_wheel.remove(pin)
                    self._pins.append(source)
            self._add_what_they_require(tried)

    def _add_what_they_require(self, built: Iterable[Pin]) -> None:
        """Add requirements that only the metadata of a source distribution lists."""
        known = {pin.name for pin in (*self._pins, *self._without_wheel)} | set(self._destination.requirements.exclude)
        lines = [
            one.line
            for pin in built
            for one in self._installed.requires.get(pin.name, ())
            if one.certain and one.name not in known
        ]
        if lines:
            more, sources = added(lines, self._pins, self._destination.requirements, self._destination.platform)
            self._without_wheel += sources
            self._pins += more
            self._add(more)

    def _add_undeclared(self) -> None:
        """Add setuptools if a distribution that the tree may load imports it, and the lock does not have it."""
        known = {pin.name for pin in (*self._pins, *self._without_wheel, *self._large)}
        known |= set(self._destination.requirements.exclude)
        loaded = self._loaded(self._reached.foreign, certain=True)
        undeclared = self._site.undeclared if self._site else {}
        self._importers_of_pkg_resources = sorted(one for one in loaded if SETUPTOOLS in undeclared.get(one, ()))
        if self._importers_of_pkg_resources and SETUPTOOLS not in known:
            requirements, platform = self._destination.requirements, self._destination.platform
            more, _ = added([WITH_PKG_RESOURCES], self._pins, requirements, platform)
            self._pins += more
            self._add(more)
        else:
            self._importers_of_pkg_resources = []

    def _wanted(self) -> set[str]:
        """Return the distributions that may be needed."""
        missing_ones = self._missing()
        wanted = self._loaded(self._reached.foreign, certain=False) | _BY_NAME
        undeclared = self._site.undeclared if self._site else {}
        wanted |= {name for one in wanted for name in undeclared.get(one, ())}
        wanted |= {pin.name for pin in self._without_wheel if may_provide(pin.name, missing_ones)}
        if surely(missing_ones):  # a distribution with another name than its module may provide it
            wanted |= {pin.name for pin in self._without_wheel}
        return wanted

    def _needed(self) -> dict[str, str]:
        """Return the needed distributions without a wheel, each with the distribution or import that needs it."""
        loaded = self._loaded(surely(self._reached.foreign), certain=True)
        needed: dict[str, str] = {}
        for pin in self._without_wheel:
            if self._replaced_by_our_psycopg2(pin.name):
                continue
            if found := may_provide(pin.name, surely(self._missing())):
                needed[pin.name] = f"imported by {found.shown}"
            elif requirers := self._installed.requirers(pin.name, loaded):
                needed[pin.name] = f"required by {listed(requirers, 3)}"
            elif self._is_the_driver(pin.name):
                needed[pin.name] = "the only driver for PostgreSQL"
            elif pin.name in _OF_ENV_PY:
                needed[pin.name] = "which runs the migrations"
        return needed

    def _is_the_driver(self, name: str) -> bool:
        has = {pin.name for pin in self._pins}
        if name == _FOR_ASYNCIO:
            return "asyncpg" in has
        return name in _DRIVERS and has.isdisjoint(_DRIVERS - {"psycopg"})

    def _replaced_by_our_psycopg2(self, name: str) -> bool:
        """Return whether the function's psycopg2 replaces it: psycopg2 itself, or asyncpg without an event loop."""
        if name == _FOR_ASYNCIO:
            return not self._is_async
        imported = surely(self._reached.foreign)
        of_asyncio = name == "asyncpg" and not self._is_async and not any(one.imported.top == name for one in imported)
        return not self._drivers and (name in _PSYCOPG2 or of_asyncio)

    @property
    def _drivers(self) -> tuple[str, ...]:
        """Return the PostgreSQL drivers among the written distributions."""
        return replace(self._locked, pins=tuple(self._pins), aside=()).drivers

    def _loaded(self, imports: Iterable[Foreign], *, certain: bool) -> set[str]:
        """Return the distributions of these imports, and their requirements from `Installed.closure`."""
        imported = set[str]().union(*(self._installed.find(one.imported) or () for one in imports))
        return self._installed.closure(imported | _OF_ENV_PY, certain=certain)

    def _missing(self) -> list[Foreign]:
        drivers = () if self._drivers else ("psycopg2",)
        lambdas = LAMBDAS if self._locked.names.isdisjoint({"boto3", "botocore"}) else ()
        return missing(self._reached, self._installed, self._destination.platform, others={*drivers, *lambdas})

    def _refuse_missing_builds(self) -> None:
        needed = self._needed()
        unknown = [one for one in surely(self._missing()) if not any(may_provide(name, [one]) for name in needed)]
        if not needed and not unknown:
            return
        lacking = [pin for pin in self._without_wheel if pin.name in needed or unknown]
        if not lacking:
            return
        if failed := next((error for pin in lacking if (error := self._index_error(pin))), None):
            raise failed
        theirs = [f"{version_of(pin)} ({needed.get(pin.name, 'never imported by its name')})" for pin in lacking]
        imported = f"; nothing provides {_imports(unknown)}" if unknown else ""
        requirements, platform = self._destination.requirements, self._destination.platform
        with_wheels = [pin for pin in lacking if not pin.line.partition(" --hash")[0].count(" @ ")]
        minors = minors_with_wheels(with_wheels, platform, requirements.index) if with_wheels == lacking else []
        minors = [minor for minor in minors if not requirements.python or allows(requirements.python, minor)]
        runtime = " and ".join(f"python3.{minor}" for minor in minors)
        has = f"{runtime} {'has' if len(minors) == 1 else 'have'} wheels for all of them"
        advice = f"{has} (the stage's setting `runtime`, or PYTHON_VERSION=3.{minors[-1]}); " if minors else ""
        local = on_this_machine(minors) if minors and platform.python is None else ""
        raise PackageError(
            f"{requirements.lock.name} has no set of wheels for {platform}: {listed(theirs)} cannot be built without a"
            f" compiler{imported}; {advice}leave out what migrations do not need with the setting `exclude`, or choose"
            f" fewer `extras`{local}",
            "\n".join(error.details or str(error) for error in self._reasons.values()),
        )

    def _index_error(self, pin: Pin) -> PackageError | None:
        error = self._reasons.get(pin.name)
        return None if error is None or isinstance(error, NotPureError) else error

    def _refuse_unresolved_imports(self) -> None:
        """Refuse a package in which env.py, the tree or a module that they load could not be imported."""
        if found := surely(self._missing()):
            lock, platform = self._destination.requirements.lock.name, self._destination.platform
            nothing = f"nothing in the package provides {_imports(found)}"
            if beside := own_folders.beside(self._destination.requirements.backend, found[0].imported.top):
                raise PackageError(
                    f"{nothing}: {found[0].imported.top} is in {beside.folder}, outside of the backend; make"
                    f" {beside.repository} the backend (BACKEND, or the stage's setting `backend`)"
                )
            if extra := self._destination.requirements.extra_with(lambda name: may_provide(name, found) is not None):
                raise PackageError(
                    f"{nothing}: the extra {extra} of the backend's project has a distribution for it; choose it with"
                    f" the setting `extras` (for make package: EXTRAS={extra})"
                )
            raise PackageError(
                f"{nothing}: neither {lock}, nor Python 3.{platform.minor}, nor a folder in Alembic's prepend_sys_path;"
                " lock the distribution that has the module, or add its folder to prepend_sys_path. If the module is"
                " optional, import it in a `try` that catches ImportError"
            )

    def _warnings(self) -> Iterator[str]:
        lock, platform = self._destination.requirements.lock.name, self._destination.platform
        modules = self._reached.modules
        called = [
            one
            for one in self._missing()
            if one.when is When.IN_A_FUNCTION and one.imported.certain and modules[one.file] is not When.PERHAPS
        ]
        if called:
            yield (
                f"nothing in the package provides {_imports(called)}, which a function imports: a migration that calls"
                " it fails; lock the distribution that has the module, or add its folder to prepend_sys_path"
            )
        if importers := self._importers_of_pkg_resources:
            yield (
                f"{listed(importers, 3)} {'imports' if len(importers) == 1 else 'import'}"
                f" pkg_resources, which {lock} does not provide: the package has {WITH_PKG_RESOURCES}; lock"
                " setuptools to choose its version"
            )
        if self._large:
            yield _about_unused(self._large)
        if self._without_wheel:
            names = listed([version_of(pin) for pin in self._without_wheel])
            yield (
                f"{names} {'has' if len(self._without_wheel) == 1 else 'have'} no wheel for {platform} and"
                f" {'is' if len(self._without_wheel) == 1 else 'are'} left out: env.py and the revisions do not import"
                f" {'it' if len(self._without_wheel) == 1 else 'them'} when they are loaded"
            )


def _imports(found: Iterable[Foreign]) -> str:
    """Return the imported modules, each with the place of its first import."""
    first: dict[str, str] = {}
    for one in found:
        name = one.imported.name if one.imported.members else one.imported.top
        first.setdefault(name, one.shown)
    return listed([f"{name} ({where})" for name, where in first.items()], 5)
