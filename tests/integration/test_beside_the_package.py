"""The files that a build writes beside a package, and files that it does not delete."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from infra.package.__main__ import main
from infra.package.builder import build
from infra.package.marker import MARKER, foreign_files
from infra.package.package_platform import Platform
from infra.package.requirements import read_requirements
from infra.package.sbom import bill_of_materials, write_bill
from tests.support.backends import make_backend

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backend(tmp_path_factory.mktemp("beside") / "shop", **{"requirements.txt": "sqlalchemy==2.0.44\n"})


@pytest.mark.stress
def test_the_bill_of_materials_lists_every_distribution_and_is_always_the_same(backend: Path, tmp_path: Path) -> None:
    built = build(backend, tmp_path / "out", Platform())
    first = write_bill(built.directory, built.digest).read_text()
    again = build(backend, tmp_path / "other", Platform())

    document = json.loads(first)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["version"] == built.digest
    listed = {(one["name"], one["version"]): one["purl"] for one in document["components"]}
    assert listed.keys() == {(one.name, one.version) for one in (*built.distributions, *built.function_distributions)}
    assert {"botocore", "psycopg2-binary", "SQLAlchemy"} <= {name for name, _ in listed}
    assert listed["SQLAlchemy", "2.0.44"] == "pkg:pypi/sqlalchemy@2.0.44"
    assert len({one["bom-ref"] for one in document["components"]}) == len(document["components"])
    second = write_bill(again.directory, again.digest)
    assert second == bill_of_materials(again.directory) == tmp_path / "other.cdx.json"
    assert second.read_text() == first
    # Beside it and not in it: nothing of this is deployed.
    assert not list(built.directory.glob("*.cdx.json"))


def test_a_package_with_foreign_files_is_not_replaced(
    backend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    build(backend, out, Platform())
    # What running the package leaves is nobody's.
    (out / "lambda_migrate" / "__pycache__").mkdir(exist_ok=True)
    (out / "lambda_migrate" / "__pycache__" / "handler.cpython-399.pyc").touch()
    build(backend, out, Platform())

    monkeypatch.setattr("sys.argv", ["infra.package", str(backend), str(out)])
    for name in ("notes.txt", "backend/app/mine.py", "lambda_migrate/__pycache__/mine.txt", "libraries/mine.pyc"):
        (out / name).write_text("mine")
        assert main() == 1
        assert f"holds files that its build did not write: {name};" in capsys.readouterr().err
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / "link").symlink_to(tmp_path)
    assert foreign_files(out) == ["link"]
    # Without its list, a package could be any folder.
    for marker in ("", "Built by infra.package, and replaced by its next build.\n?\n"):
        (out / MARKER).write_text(marker)
        assert "lambda_migrate/handler.py" in foreign_files(out)


@pytest.mark.parametrize(
    "text,loose",
    [
        ("sqlalchemy==2.0.44\n", "1 of 1"),
        ("sqlalchemy>=2 --hash=sha256:00\n", "1 of 1"),
        ("rich\nsqlalchemy==2.0.44 \\\n    --hash=sha256:00\n", "1 of 2"),
        ("sqlalchemy==2.0.44 \\\n    --hash=sha256:00\n", None),
    ],
)
def test_requirements_without_versions_or_hashes_are_warned_about(tmp_path: Path, text: str, loose: str | None) -> None:
    warnings = read_requirements(make_backend(tmp_path / "shop", **{"requirements.txt": text})).warnings

    assert len(warnings) == (loose is not None)
    assert all(f"{loose} requirements without an exact version or without hashes" in warning for warning in warnings)
