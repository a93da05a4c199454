"""Finds the installed distributions for the backend's imports, their requirements, and imports without one."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from infra.package.compatibility import environment_of
from infra.package.import_graph import When
from infra.package.layout import BACKEND_LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from infra.package.import_graph import Foreign, Import, Reached
    from infra.package.package_platform import Platform

# The distributions in Lambda's own Python, which env.py's process gets without a lock: boto3 and its requirements.
LAMBDAS = frozenset({"boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3"})
# The modules that were removed from or added to the standard library after 3.10, by Python's minor version.
_REMOVED_IN: Mapping[int, frozenset[str]] = {
    11: frozenset({"binhex"}),
    12: frozenset({"asynchat", "asyncore", "distutils", "imp", "smtpd"}),
    13: frozenset(
        {
            *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis"),
            *("nntplib", "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
        }
    ),
}
_ADDED_IN: Mapping[int, frozenset[str]] = {11: frozenset({"tomllib"}), 14: frozenset({"annotationlib", "compression"})}
_PLUGIN = re.compile(rb"^\[(?:sqlalchemy|alembic)\.", re.MULTILINE)
# Distributions that are often installed from source and whose modules have another name.
_MODULES: Mapping[str, str] = {
    "beautifulsoup4": "bs4",
    "ibm-db": "ibm_db",
    "mysqlclient": "MySQLdb",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "psycopg2-binary": "psycopg2",
    "pycrypto": "Crypto",
    "pycryptodome": "Crypto",
    "pygobject": "gi",
    "pyjwt": "jwt",
    "pymysql": "pymysql",
    "python-dateutil": "dateutil",
    "python-ldap": "ldap",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}


def standard_library(minor: int) -> frozenset[str]:
    """Return the modules of the standard library of Python 3.``minor``."""
    every = set(sys.stdlib_module_names).union(*_REMOVED_IN.values(), *_ADDED_IN.values())
    removed = (names for since, names in _REMOVED_IN.items() if minor >= since)
    later = (names for since, names in _ADDED_IN.items() if minor < since)
    return frozenset(every.difference(*removed, *later))


@dataclass(frozen=True)
class Dependency:
    """A requirement of an installed distribution. ``certain``: it applies to the platform without any extra."""

    name: str
    line: str
    certain: bool


@dataclass
class Installed:
    """The installed distributions of a package: the modules and the requirements of each."""

    owners: dict[PurePosixPath, str] = field(default_factory=dict)
    folders: dict[PurePosixPath, set[str]] = field(default_factory=lambda: defaultdict(set))
    requires: dict[str, tuple[Dependency, ...]] = field(default_factory=dict)
    # Those that SQLAlchemy and Alembic load by their entry points.
    plugins: set[str] = field(default_factory=set)

    def add(self, package: Path, owners: Mapping[str, str], platform: Platform) -> None:
        """Add the distributions in a package. ``owners`` maps each path in the package to its distribution."""
        environment = environment_of(platform)
        for path, owner in owners.items():
            module = PurePosixPath(path).relative_to(BACKEND_LIBRARIES)
            if module.parent.name.endswith(".dist-info"):
                if module.name == "METADATA":
                    text = (package / path).read_text(encoding="utf-8", errors="replace")
                    self.requires[owner] = tuple(_dependencies(text, environment))
                elif module.name == "entry_points.txt" and _PLUGIN.search((package / path).read_bytes()):
                    self.plugins.add(owner)
                continue
            if module.suffix in {".py", ".pyc", ".so"} and "__pycache__" not in module.parts:
                self.owners[module.parent / module.name.partition(".")[0]] = owner
            for folder in module.parents:
                self.folders[folder].add(owner)

    def find(self, one: Import) -> set[str] | None:
        """Return the distributions that an import loads; None if there is no such module."""
        at = PurePosixPath()
        found: set[str] = set()
        for part in one.name.split("."):
            at /= part
            if owner := self.owners.get(at / "__init__"):
                found.add(owner)
            elif owner := self.owners.get(at):
                return found | {owner}
            elif at not in self.folders:
                # A regular package may create modules at run time.
                return found or None
        if found:
            # A member may be a module that another distribution adds to this package.
            return found.union(*(self._below(at / member) for member in one.members))
        if not one.members:
            return set(self.folders[at])
        members = [self._below(at / member) for member in one.members]
        return set().union(*members) if all(members) else None

    def providers(self, tops: Iterable[str]) -> set[str]:
        """Return the distributions that provide these modules or packages."""
        return set().union(*(self._below(PurePosixPath(top)) for top in tops))

    def _below(self, at: PurePosixPath) -> set[str]:
        owner = self.owners.get(at / "__init__") or self.owners.get(at)
        return {owner} if owner else set(self.folders.get(at, ()))

    def closure(self, names: Iterable[str], *, certain: bool) -> set[str]:
        """Return distributions and their requirements. ``certain`` leaves out those of extras and other platforms."""
        waiting, found = list(names), set[str]()
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [one.name for one in self.requires.get(name, ()) if one.certain or not certain]
        return found

    def requirers(self, name: str, among: Collection[str]) -> list[str]:
        """Return the distributions among these that certainly require this one."""
        return sorted(
            one for one in among if any(each.name == name and each.certain for each in self.requires.get(one, ()))
        )


def _dependencies(metadata: str, environment: Mapping[str, str]) -> Iterator[Dependency]:
    for line in re.findall(r"^Requires-Dist: *(.*?) *$", metadata.partition("\n\n")[0], re.MULTILINE):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # old distributions have some
            continue
        certain = requirement.marker is None or requirement.marker.evaluate({**environment, "extra": ""})
        requirement.marker = None
        yield Dependency(canonicalize_name(requirement.name), str(requirement), certain)


def missing(reached: Reached, installed: Installed, platform: Platform, *, others: Collection[str]) -> list[Foreign]:
    """Return the imports of modules that are neither installed nor in the standard library of the platform.

    ``others`` are further modules that the function can import.
    """
    known = standard_library(platform.minor) | set(others)
    return [one for one in reached.foreign if one.imported.top not in known and installed.find(one.imported) is None]


def may_provide(distribution: str, imports: Iterable[Foreign]) -> Foreign | None:
    """Return the most certain import that matches a distribution's name, None if no import does."""
    plain = distribution.replace("-", "_")
    names = {plain, plain.replace("_", ""), re.sub(r"^(py|python_)|(_python|py)$", "", plain)}
    names |= {_MODULES.get(distribution, plain).lower(), plain.partition("_")[0]}
    found = [one for one in imports if one.imported.top.lower() in names]
    return min(found, key=lambda one: one.when, default=None)


def surely(imports: Iterable[Foreign]) -> list[Foreign]:
    """Return the imports that always run when the tree is loaded."""
    return [one for one in imports if one.when is When.ALWAYS]
