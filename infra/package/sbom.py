"""Writes the bill of materials (SBOM) of a package beside it."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from infra.package.distributions import Distribution


def bill_of_materials(out: Path) -> Path:
    """Return the path of a package's bill of materials, such as ``out.cdx.json`` for ``out``."""
    return out.with_name(f"{out.name}.cdx.json")


def write_bill(package: Path, digest: str, distributions: Sequence[Distribution]) -> Path:
    """Write the bill of materials of a package beside it, and return its path."""
    path = bill_of_materials(package)
    content = json.dumps(_document(digest, distributions), indent=2, sort_keys=True)
    path.write_text(f"{content}\n", encoding="utf-8")
    return path


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
