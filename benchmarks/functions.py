"""The contestants that are functions: their packages, and their invocations under AWS's runtime client."""

from __future__ import annotations

import compileall
import py_compile
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import histories
from benchmarks.ground import BENCH, ROOT
from infra.package.builder import build
from infra.package.package_platform import Platform
from localcloud.runtime_api import Function

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.ground import Ground
    from benchmarks.histories import Change
    from localcloud.postgres import Database
    from localcloud.runtime_api import Answer

RUNTIME = ROOT / ".local" / "runtime" / "bin" / "python"

_DEPLOYED = Path(__file__).parent / "deployed"
_LAST_INVOCATION_S = 300
_UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH


@dataclass(frozen=True)
class Deployed:
    """A function: its package, handler and variables."""

    package: Path
    handler: str
    environment: Mapping[str, str]

    def start(self) -> Function:
        """Return a function whose process starts to initialise."""
        return Function(self.package, self.environment, RUNTIME, handler=self.handler, timeout_s=_LAST_INVOCATION_S)

    def cold(self) -> float:
        """Return the seconds from the start of its process to the response."""
        began = time.perf_counter()
        with self.start() as function:
            succeeded(function.invoke(), function)
            return time.perf_counter() - began


def succeeded(answer: Answer, function: Function) -> Any:  # noqa: ANN401 - JSON
    """Return the response. Raise `RuntimeError` with the log if it is an error."""
    if answer.error_type:
        raise RuntimeError(f"{answer.error_type}: {answer.message}\n" + "\n".join(function.log()[-20:]))
    return answer.payload


def warm(function: Function) -> float:
    """Return the seconds of one more invocation."""
    answer = function.invoke()
    succeeded(answer, function)
    return answer.duration_s


def ours(ground: Ground, name: str, history: Sequence[Change]) -> Path:
    """Return our package of this history. Packages are built once and reused by name, here and below."""
    out = ground.scratch / f"ours-{name}"
    if not out.exists():
        build(backend(ground, name, history), out, Platform())
    return out


def backend(ground: Ground, name: str, history: Sequence[Change]) -> Path:
    """Return a backend's folder, locked like the reference backend."""
    folder = ground.scratch / f"backend-{name}"
    if not folder.exists():
        histories.write_alembic(folder, history)
        for file in ("pyproject.toml", "uv.lock"):
            shutil.copy(ROOT / "back" / file, folder / file)
    return folder


def naive(ground: Ground, name: str, history: Sequence[Change]) -> Path:
    """Return the naive handler with its requirements, as `pip install --target` installs them."""
    out = ground.scratch / f"naive-{name}"
    if not out.exists():
        _lay_out(BENCH / "naive", out)
        shutil.copy(_DEPLOYED / "naive.py", out)
        histories.write_alembic(out, history)
    return out


def bare(ground: Ground, name: str, history: Sequence[Change], *, bytecode: bool = True) -> Path:
    """Return the bare script, with bytecode for its whole package or for none of it."""
    out = ground.scratch / f"bare-{name}-{'compiled' if bytecode else 'source'}"
    if not out.exists():
        _lay_out(_compiled_bare(ground) if bytecode else BENCH / "bare", out)
        shutil.copy(_DEPLOYED / "bare.py", out)
        histories.write_bare(out, history)
        if bytecode:
            # The files directly in the package. The folders have their bytecode already.
            compileall.compile_dir(out, maxlevels=0, quiet=2, invalidation_mode=_UNCHECKED)
    return out


def _compiled_bare(ground: Ground) -> Path:
    """Return the bare script's requirements with bytecode."""
    made = ground.scratch / "bare-requirements"
    if not made.exists():
        _refuse_what_is_not_installed(BENCH / "bare")
        shutil.copytree(BENCH / "bare", made)
        compileall.compile_dir(made, quiet=2, workers=0, invalidation_mode=_UNCHECKED)
    return made


def _lay_out(requirements: Path, out: Path) -> None:
    """Make a package's folder with links to the distributions, which have many files."""
    _refuse_what_is_not_installed(requirements)
    out.mkdir()
    for entry in requirements.iterdir():
        if entry.name not in {"__pycache__", ".ready"}:
            (out / entry.name).symlink_to(entry)


def _refuse_what_is_not_installed(folder: Path) -> None:
    if not (folder / ".ready").exists():
        raise RuntimeError(f"{folder} is not installed; run: make bench")


def environment(ground: Ground, database: Database) -> dict[str, str]:
    """Return the variables of a function, the same for each contestant."""
    return {
        "AWS_ENDPOINT_URL": ground.endpoint,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DB_SECRET_ID": database.name,
        "DB_SSLROOTCERT": str(database.ca),
        "STAGE": "bench",
        "TARGETS_ALLOWED": '{"secret_id": ["*"], "database": ["*"], "schema": ["*"]}',
        "POWERTOOLS_SERVICE_NAME": "bench",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        # A function cannot write bytecode beside its code, so the package contains it or there is none.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def our_function(ground: Ground, package: Path, database: Database) -> Deployed:
    """Return our package as a function."""
    return Deployed(package, "lambda_migrate.handler.handler", environment(ground, database))


def naive_function(ground: Ground, package: Path, database: Database) -> Deployed:
    """Return the naive handler as a function."""
    return Deployed(package, "naive.handler", environment(ground, database))


def bare_function(ground: Ground, package: Path, database: Database) -> Deployed:
    """Return the bare script as a function."""
    return Deployed(package, "bare.handler", environment(ground, database))
