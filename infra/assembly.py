"""Checks a cloud assembly before `cdk deploy` reads it with credentials: `python3 -m infra.assembly DIR`.

Code of the backend and of its dependencies may run in the build that makes the assembly. An assembly can name commands
that `cdk deploy` runs, variables that it passes to a container build, and files of the machine that it uploads. This
project's stacks need none of these. The module imports only the standard library, so nothing must be installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# The kinds of artifacts and the fields of an asset's source that this project's stacks have. `executable` and
# `dockerBuildSecrets` are among the others.
_ARTIFACTS = frozenset({"aws:cloudformation:stack", "cdk:asset-manifest", "cdk:tree", "cdk:feature-flag-report"})
_SOURCES = {
    "files": frozenset({"path", "packaging"}),
    "dockerImages": frozenset({"directory", "dockerBuildArgs", "dockerFile", "platform"}),
}


class AssemblyError(Exception):
    """The assembly contains what this project's stacks do not need. The message names the file and the field."""


def check(folder: Path) -> None:
    """Check that `cdk deploy` runs no command of the assembly and uploads no file from outside of it.

    Raises:
        AssemblyError: it could.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise AssemblyError(f"{path} is a symbolic link")
    artifacts = _read(folder / "manifest.json").get("artifacts", {})
    for name, artifact in artifacts.items():
        _refuse_others({artifact["type"]}, _ARTIFACTS, f"manifest.json: the artifact {name}")
        for field in ("file", "templateFile"):
            _inside(folder, artifact.get("properties", {}).get(field), f"manifest.json: {name}.{field}")
        if artifact["type"] == "cdk:asset-manifest":
            _check_assets(folder, artifact["properties"]["file"])


def _check_assets(folder: Path, file: str) -> None:
    manifest = _read(folder / file)
    for kind, fields in _SOURCES.items():
        for name, asset in manifest.get(kind, {}).items():
            source = asset["source"]
            _refuse_others(source, fields, f"{file}: the source of {name}")
            for field in ("path", "directory"):
                _inside(folder, source.get(field), f"{file}: {name}.{field}")


def _refuse_others(found: Collection[str], known: Collection[str], where: str) -> None:
    others = sorted(set(found) - set(known))
    if others:
        raise AssemblyError(f"{where} has {', '.join(others)}")


def _inside(folder: Path, path: str | None, where: str) -> None:
    root = folder.resolve()
    if path is not None and not (root / path).resolve().is_relative_to(root):
        raise AssemblyError(f"{where} is outside of the assembly: {path}")


def _read(file: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def main(arguments: Sequence[str]) -> int:
    """Check the assembly in a folder, and return the exit code."""
    try:
        check(Path(*arguments))
    except (AssemblyError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        sys.stderr.write(f"error: refused to deploy: {error!s}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
