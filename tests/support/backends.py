"""Backends that can be packaged, and what makes one that cannot."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from uv import find_uv_bin

if TYPE_CHECKING:
    from pathlib import Path

INI = "[alembic]\nscript_location = %(here)s/alembic\nprepend_sys_path = .\npath_separator = os\n"
REVISION = '"""First."""\nrevision = "a1"\ndown_revision = None\n\ndef upgrade(): ...\n'
ENV = "from alembic import context\nfrom app import models\n"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def make_backend(folder: Path, **files: str) -> Path:
    """A backend that can be packaged; more files by their paths, also in place of its own."""
    own = {
        "alembic.ini": INI,
        "alembic/env.py": ENV,
        "alembic/versions/a1_first.py": REVISION,
        "app/__init__.py": "",
        "app/models.py": "import sqlalchemy\n",
        "requirements.txt": "sqlalchemy>=2.0\n",
    }
    write(folder, **{**own, **files})
    return folder


def lock(backend: Path, *requirements: str) -> Path:
    (backend / "requirements.txt").unlink(missing_ok=True)
    dependencies = ", ".join(f'"{requirement}"' for requirement in requirements)
    write(
        backend,
        **{
            "pyproject.toml": f'[project]\nname = "shop"\nversion = "0"\nrequires-python = ">=3.10"\n'
            f"dependencies = [{dependencies}]\n"
        },
    )
    subprocess.run([find_uv_bin(), "lock", "--quiet", "--python", sys.executable], cwd=backend, check=True)
    return backend
