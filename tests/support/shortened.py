"""The function with shorter timeouts, because its real constants would take a test a minute."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.checkout import ROOT
from tests.support.functions import assemble

if TYPE_CHECKING:
    from collections.abc import Mapping


def shorten(package: Path, backend: Path, out: Path, constants: Mapping[str, float]) -> None:
    """Build a package with this backend in which constants, as ``package.module.NAME``, have other values."""
    assemble(package, backend, out)
    (out / "lambda_migrate").unlink()
    # Its sources, because the package has bytecode only.
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lambda_migrate", out / "lambda_migrate", ignore=ignored)
    for constant, value in constants.items():
        *folders, module, name = constant.split(".")
        file = Path(out, "lambda_migrate", *folders, f"{module}.py")
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", file.read_text(), flags=re.MULTILINE)
        assert count == 1, constant
        file.write_text(text)
