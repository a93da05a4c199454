"""The checkpoint of one tree, made once for the tests of this folder: they have the same xdist_group."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.checkpoints import SEEDED, checkpoint
from tests.support.env_py.backend import package_with
from tests.support.trees import Rev, sql, write_revision, write_tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with two heads, rows, and objects of many kinds, with its checkpoint."""
    folder = write_tree(tmp_path_factory.mktemp("seeded") / "seeded", SEEDED)
    checkpoint(folder)
    return folder


@pytest.fixture
def later(seeded: Path, tmp_path: Path) -> Path:
    """The same with a revision that came after the checkpoint."""
    folder = shutil.copytree(seeded, tmp_path / "later")
    write_revision(
        folder / "alembic" / "versions",
        Rev(
            "d4",
            sql("ALTER TABLE plans ADD note text", "DROP TABLE third"),
            sql("CREATE TABLE third (id int)"),
            description="Later",
        ),
        ("b2", "c3"),
    )
    return folder
