"""Copies this checkout for one test run, so that the developer's data stay unchanged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What was installed is the same for every copy.
_INSTALLED = (
    ".venv",
    "node_modules",
    ".local/cache",
    ".local/ministack",
    ".local/postgresql",
    ".local/runtime",
)
_NOT_COPIED = ("tests", "node_modules", "cdk.out")


def copy_checkout(folder: Path) -> Path:
    """Copy the project's own files to the new `folder`, link the installed tools, and return the folder."""
    if folder.exists():
        # pytest-xdist 3.8 does this under pytest 9.2, without a word: pytest-dev/pytest-xdist#1386.
        raise FileExistsError(f"{folder} is another worker's: the tests of one xdist_group were not kept together")
    (folder / ".local").mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name.startswith(".") or entry.name in _NOT_COPIED:
            continue
        if entry.is_dir():
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(entry, folder / entry.name)
    for name in _INSTALLED:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return folder


def change_project(checkout: Path, **settings: object) -> None:
    """Set keys of ``project`` in a copy's cdk.json."""
    file = checkout / "cdk.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["context"]["project"].update(settings)
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def with_tools(environment: dict[str, str]) -> dict[str, str]:
    """The environment with the project's own commands first on the path, as the Makefile puts them."""
    folders = [str(ROOT / ".venv" / "bin"), str(ROOT / "node_modules" / ".bin"), environment.get("PATH", os.defpath)]
    # Bytecode switched off makes each start several times slower; the make that runs the tests is not that of a test.
    left_out = ("PYTHONDONTWRITEBYTECODE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    kept = {name: value for name, value in environment.items() if name not in left_out}
    # The CDK's validation takes most of the time of a synth. The tests that are about a stage's template switch it on.
    return {"CDK_VALIDATION": "false", **kept, "PATH": os.pathsep.join(folders)}
