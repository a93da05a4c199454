"""Writes the bill of materials (SBOM) of a package beside it."""

from __future__ import annotations

import json
import uuid
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def bill_of_materials(out: Path) -> Path:
    """Return the path of a package's bill of materials, such as ``out.cdx.json`` for ``out``."""
    return out.with_name(f"{out.name}.cdx.json")


def write_bill(package: Path, digest: str) -> Path:
    """Write the bill of materials of a package beside it, and return its path.

    It lists the distributions in the package's folders of libraries: the function's own, the backend's, and Lambda's.
    """
    path = bill_of_materials(package)
    folders = sorted({str(found.parent) for found in package.glob("*/*.dist-info")})
    # The function and the backend may have the same version of a distribution.
    found = sorted({(one.name, one.version) for one in metadata.distributions(path=folders)})
    path.write_text(f"{json.dumps(_document(digest, found), indent=2, sort_keys=True)}\n", encoding="utf-8")
    return path


def _document(digest: str, distributions: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the document in CycloneDX 1.6. It has no timestamp, so the same package has the same document."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name.lower()}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        }
        for name, version in distributions
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
