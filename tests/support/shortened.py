"""The function with less patience: what its real constants take a minute to show."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from tests.support.functions import assemble

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def shorten(package: Path, backend: Path, out: Path, constants: Mapping[str, float]) -> None:
    """Make a package with this backend in which constants, as ``module.NAME``, have other values."""
    assemble(package, backend, out)
    for constant, value in constants.items():
        module, name = constant.split(".")
        file = out / "lambda_migrate" / f"{module}.py"
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", file.read_text(), flags=re.MULTILINE)
        assert count == 1, constant
        file.write_text(text)
    shutil.rmtree(out / "lambda_migrate" / "__pycache__", ignore_errors=True)
