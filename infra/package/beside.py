"""Writes a bill of materials beside a package, and the list of its files into its marker."""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.package.distributions import Distribution

MARKER = ".lambda-migrate-package"
_FIRST_LINE = "Built by infra.package, and replaced by its next build."
_SHOWN = 3
_CACHE = "__pycache__"


def bill_of_materials(out: Path) -> Path:
    """Return the path of a package's bill of materials, such as ``out.cdx.json`` for ``out``."""
    return out.with_name(f"{out.name}.cdx.json")


def write_bill(package: Path, digest: str, distributions: Sequence[Distribution]) -> Path:
    """Write the bill of materials of a package beside it, and return its path."""
    path = bill_of_materials(package)
    content = json.dumps(_document(digest, distributions), indent=2, sort_keys=True)
    path.write_text(f"{content}\n", encoding="utf-8")
    return path


def write_marker(package: Path) -> None:
    """Write the file that tells a package from any other folder, with the list of the files that are in it by now."""
    listed = zlib.compress("\n".join(_files(package)).encode(), 9)
    text = f"{_FIRST_LINE}\n{base64.b64encode(listed).decode()}\n"
    (package / MARKER).write_text(text, encoding="utf-8")


def foreign_files(package: Path) -> list[str]:
    """Return the files in a package that its build did not write, or none if an older build has not listed them.

    Python's caches do not count, because running the package writes some.
    """
    try:
        _, listed, *_ = (package / MARKER).read_text(encoding="utf-8").splitlines()
        written = {MARKER, *zlib.decompress(base64.b64decode(listed)).decode().split("\n")}
    except (OSError, ValueError, zlib.error):
        return []
    return [name for name in _files(package) if name not in written and _CACHE not in Path(name).parts]


def shown(names: Sequence[str]) -> str:
    """Return the first names for a message."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}"


def _files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink())


def _document(digest: str, distributions: Sequence[Distribution]) -> dict[str, Any]:
    """Return the document in CycloneDX 1.6. It has no timestamp, so the same package has the same document."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{one.name.lower()}@{one.version}",
            "name": one.name,
            "version": one.version,
            "purl": f"pkg:pypi/{one.name.lower().replace('_', '-')}@{one.version}",
        }
        for one in distributions
    ]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "package",
                "name": "lambda_migrate",
                # A digest of every file's path, mode and content. The CDK names its asset by it.
                "version": digest,
            },
        },
        "components": components,
        "dependencies": [{"ref": "package", "dependsOn": [each["bom-ref"] for each in components]}],
    }
