"""``python -m infra.package BACKEND OUT`` builds a package and prints a summary of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.package.builder import build
from infra.package.errors import PackageError
from infra.package.marker import foreign_files, shown
from infra.package.package_platform import Platform
from infra.package.sbom import write_bill
from infra.package.selection import Selection


def main() -> int:
    """Build the package, and return the exit code: 1 if the backend cannot be packaged."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description="Build the function's package.")
    parser.add_argument("backend", type=Path, help="the backend's folder")
    parser.add_argument("out", type=Path, help="the folder to make; an older package there is replaced")
    parser.add_argument("--config", help="the Alembic configuration's path in the backend (default: found by itself)")
    parser.add_argument("--requirements", help="the path in the backend of another lock or requirements file")
    parser.add_argument("--package-files", nargs="*", default=(), help="patterns of more files, such as sql/*.sql")
    parser.add_argument("--python", help="Python version to build for, e.g. 3.13 (default: this machine)")
    parser.add_argument("--architecture", choices=["arm64", "x86_64"], help="architecture to build for")
    parser.add_argument("--dependency-group", help="package this group of the lock in place of all dependencies")
    parser.add_argument("--extras", nargs="*", default=(), help="extras of the backend's project to add")
    parser.add_argument("--exclude", nargs="*", default=(), help="distributions to leave out")
    parser.add_argument("--traced", action="store_true", help="package only what the migrations import")
    parser.add_argument("--verbose", action="store_true", help="after an error, print all that uv wrote about it")
    arguments = parser.parse_args()
    if (arguments.python is None) != (arguments.architecture is None):
        parser.error("--python and --architecture go together")
    try:
        platform = Platform(arguments.python, arguments.architecture)
        selection = Selection(
            dependency_group=arguments.dependency_group,
            extras=tuple(arguments.extras),
            exclude=tuple(arguments.exclude),
            requirements=arguments.requirements,
            package_files=tuple(arguments.package_files),
            traced=arguments.traced,
        )
        _refuse_to_delete(arguments.out)
        package = build(arguments.backend, arguments.out, platform, arguments.config, selection=selection)
        bill = write_bill(package.directory, package.digest)
    except (PackageError, OSError) as error:  # such as a folder without write permission
        details = error.details.rstrip() if isinstance(error, PackageError) else ""
        more = " (--verbose or VERBOSE=1 shows all of it)" if details and not arguments.verbose else ""
        print(f"error: {error}{more}", file=sys.stderr)
        if details and arguments.verbose:
            print(details, file=sys.stderr)
        return 1
    print(f"{package.directory}")
    print(f"  built for  {platform}")
    print(f"  size       {package.size_bytes / 2**20:.1f} MB unpacked")
    print(f"  heads      {', '.join(package.heads)}")
    print(f"  revisions  {package.revisions}")
    print(f"  materials  {bill}")
    for warning in package.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _refuse_to_delete(out: Path) -> None:
    """Raise an error if the package to replace contains files that the build did not write."""
    if extra := foreign_files(out):
        raise PackageError(
            f"{out} holds files that its build did not write: {shown(extra)}; move them away, or name another folder"
        )


if __name__ == "__main__":
    sys.exit(main())
