"""Selects the files of an installed distribution that go into the package.

It shortens only the distributions of the function and of env.py's process, whose use is known. All other distributions
of a backend are packaged completely.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from infra.package.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from collections.abc import Set as AbstractSet

    from infra.package.bytecode import Form

# The distributions of the function and of env.py's process, with patterns of files that no program uses.
_LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "alembic": ("alembic/testing/*",),
    "aws-lambda-powertools": (),
    "boto3": ("boto3/examples/*",),
    # The first of two APIs. botocore uses the other one unless a caller passes the date.
    "botocore": ("botocore/data/*/examples-1.json*", "botocore/data/rds/2014-09-01/*"),
    "jmespath": (),
    "mako": ("mako/testing/*",),
    "markupsafe": (),
    "psycopg2-binary": (),
    "python-dateutil": (),
    "s3transfer": (),
    "six": (),
    "sqlalchemy": ("sqlalchemy/testing/*", "sqlalchemy/dialects/*/provision.py*", "sqlalchemy/dialects/*.txt"),
    "typing-extensions": (),
    "urllib3": ("urllib3/contrib/emscripten/*",),
}
# The function's own libraries never import these: unused parts of Powertools, and dateutil's time zones and calendar
# rules, which botocore does not use.
_LEFT_OUT_OF_OURS = re.compile(
    r"aws_lambda_powertools/(event_handler|utilities/(?!jmespath_utils/|typing/)[^/]+)/.*"
    r"|dateutil/zoneinfo/.*\.tar\.gz|dateutil/(easter|rrule)\.pyc?"
)
_SOURCES_OF_EXTENSIONS = ("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h")
# Python files in these distributions that are read as text and not imported.
_KEPT_AS_SOURCE = ("alembic/templates/*",)

# The services that the function calls, and those that botocore calls to get credentials.
_OUR_SERVICES = frozenset({"rds", "s3", "secretsmanager", "sts"})
# The first argument of client(), create_client() or resource(), also in partial(), or their service_name at any place.
_SERVICE = re.compile(
    rb"""(?:(?:\b|_)(?:client|resource)\s*[(,]\s*|\bservice_name["']?\s*[=:]\s*)["']([a-z0-9-]+)["']"""
)
_DATA = re.compile(r"(?:boto3|botocore)/data/([a-z0-9-]+)/.*")
_ENDPOINTS = "botocore/data/endpoints.json"
_MODEL = re.compile(r"botocore/data/.*\.json\.gz")

# SQLAlchemy's dialects of other databases, and the words without which no code uses them.
_FOREIGN_DIALECTS: Mapping[str, re.Pattern[bytes]] = {
    "mssql": re.compile(rb"(?i)mssql"),
    "mysql": re.compile(rb"(?i)mysql|mariadb"),
    "oracle": re.compile(rb"(?i)oracle"),
    "sqlite": re.compile(rb"(?i)sqlite"),
}
_DIALECT = re.compile(r"sqlalchemy/dialects/(\w+)/.*")

_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
_ELF = b"\x7fELF\x02\x01"  # 64 bits, little-endian, as all of Lambda's are


def is_known(distribution: str) -> bool:
    """Return whether a distribution is a library of the function or of env.py's process. Its name is normalised."""
    return distribution in _LEFT_OUT


def bytecode_form(distribution: str, path: str) -> Form:
    """Return the form of a Python file's bytecode. Source and bytecode together would double the size.

    Without the source, tracebacks have the line numbers of these libraries but not the lines.
    """
    return "bare" if is_known(distribution) and not _matches(path, _KEPT_AS_SOURCE) else "whole"


def is_packaged(
    distribution: str, path: str, *, ours: bool, services: Collection[str] | None, dialects: AbstractSet[str]
) -> bool:
    """Return whether a file of a distribution goes into the package.

    ``ours``: it is one of the function's own libraries. ``services``: the AWS services in use; None means all.
    ``dialects``: the dialects of other databases whose names appear.
    """
    if not is_known(distribution):
        return True
    if _matches(path, (*_SOURCES_OF_EXTENSIONS, *_LEFT_OUT[distribution])):
        return False
    if ours and _LEFT_OUT_OF_OURS.fullmatch(path):
        return False
    dialect = _DIALECT.fullmatch(path)
    if dialect and dialect[1] in _FOREIGN_DIALECTS.keys() - dialects:
        return False
    data = _DATA.fullmatch(path)
    return services is None or data is None or data[1] in services


def packaged(path: str, content: bytes, services: Collection[str] | None) -> tuple[str, bytes]:
    """Return a stored file's path and content in the package.

    The list of AWS endpoints keeps only the used services. The store keeps botocore's models unchanged: most packages
    have 4 of its 400 services, and rewriting all takes 2 s.
    """
    if _MODEL.fullmatch(path):
        model = _without_documentation(json.loads(gzip.decompress(content)))
        # Not compressed, because versions of zlib give different bytes. botocore also reads the plain file.
        return path.removesuffix(".gz"), _json(model)
    if path != _ENDPOINTS or services is None:
        return path, content
    document = json.loads(content)
    for partition in document["partitions"]:
        partition["services"] = {name: one for name, one in partition["services"].items() if name in services}
    return path, _json(document)


def stored(path: str, content: bytes) -> bytes:
    """Return a file of these distributions without documentation and debug information, for any package."""
    if _METADATA.fullmatch(path):
        return content.partition(b"\n\n")[0] + b"\n"
    return _without_debug_information(content) if ".so" in PurePosixPath(path).suffixes else content


def dialects_named(source: bytes) -> set[str]:
    """Return the dialects of other databases that a Python file names."""
    return {name for name, word in _FOREIGN_DIALECTS.items() if word.search(source)}


def services_named(source: bytes) -> set[str]:
    """Return the services of AWS for which a Python file creates clients by name."""
    return {name.decode() for name in _SERVICE.findall(source)}


def services_used(named: Collection[str], wanted: Collection[str] | None, known: Collection[str]) -> set[str] | None:
    """Return the services whose data are packaged, or None for all. ``known`` are those of the packaged botocore.

    Raises:
        PackageError: botocore does not have a wanted service.
    """
    if wanted is None:
        return None
    for missing in sorted(set(wanted) - set(known)):
        raise PackageError(f"aws_services names {missing}, which the packaged botocore does not have; correct the name")
    # Words that only look like a service's name are dropped.
    return {*_OUR_SERVICES, *wanted, *named} & set(known)


def service_of(path: str) -> str | None:
    """Return the service that a file of botocore's data describes."""
    data = _DATA.fullmatch(path)
    return data[1] if data and path.startswith("botocore/") else None


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _without_documentation(part: Any) -> Any:  # noqa: ANN401 - JSON
    """Empty the documentation in botocore's models. It is 90 % of them, and every cold start would read it.

    Botocore reads some of these keys, so they stay, with an empty text. In AWS's data, a structure can have the same
    name; it stays unchanged.
    """
    if isinstance(part, dict):
        return {
            name: "" if name == "documentation" and isinstance(one, str) else _without_documentation(one)
            for name, one in part.items()
        }
    return [_without_documentation(one) for one in part] if isinstance(part, list) else part


def _without_debug_information(library: bytes) -> bytes:
    """Cut off the parts of a shared library that the dynamic linker does not load: debug information and tables.

    90 % of SQLAlchemy's .so files is debug information: 9.2 MB become 1.3 MB, and 2.6 MB zipped become 0.5.
    """
    if not library.startswith(_ELF):
        return library
    table, size, count = (*struct.unpack_from("<Q", library, 0x20), *struct.unpack_from("<HH", library, 0x36))
    end = table + size * count
    for header in range(table, end, size):
        offset, _, _, length = struct.unpack_from("<4Q", library, header + 0x08)
        end = max(end, offset + length)
    cut = bytearray(library[:end])
    struct.pack_into("<Q", cut, 0x28, 0)  # the position of the section table
    # The size and number of its rows, and the index of the row with their names.
    struct.pack_into("<3H", cut, 0x3A, 0, 0, 0)
    return bytes(cut)


def _matches(path: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
