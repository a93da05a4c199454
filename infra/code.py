"""The function's code: the package of a backend, and what a Lambda function needs to run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_lambda as lambda_

from infra.package.builder import IMAGE, build
from infra.package.package_platform import Platform
from infra.package.sbom import write_bill
from infra.package.selection import Selection

if TYPE_CHECKING:
    from infra.stages import Options

HANDLER = "lambda_migrate.handler.handler"
CA_BUNDLE_IN_PACKAGE = "database-ca.pem"
CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Code:
    """The folder of a package, the digest of its content, and warnings for the person who deploys it."""

    directory: Path
    digest: str
    warnings: tuple[str, ...] = ()


def build_code(options: Options, backend: Path, out: Path, ca_bundle: Path | None) -> Code:
    """Build the package of a backend at ``out``.

    Raises:
        PackageError: the backend cannot be packaged.
    """
    extra_files = {CA_BUNDLE_IN_PACKAGE: ca_bundle} if ca_bundle else {}
    if options.runtime == "local":
        extra_files["bootstrap"] = CHECKOUT / "localcloud" / "bootstrap.py"
        platform = Platform()
    else:
        platform = Platform(python=options.runtime.removeprefix("python"), architecture=options.architecture)
    if options.packaging == "image":
        extra_files["Dockerfile"] = IMAGE
    selection = Selection(
        dependency_group=options.dependency_group,
        extras=tuple(options.extras),
        exclude=tuple(options.exclude),
        requirements=options.requirements_file,
        package_files=tuple(options.package_files),
        traced=options.requirements == "traced",
        environment=options.environment,
        aws_services=None if "all" in options.aws_services else tuple(options.aws_services),
        limited=options.packaging == "zip",
    )
    package = build(backend, out, platform, config=options.alembic_config, extra_files=extra_files, selection=selection)
    write_bill(package.directory, package.digest)
    return Code(package.directory, package.digest, package.warnings)


def function_arguments(options: Options, code: Code) -> dict[str, Any]:
    """Return a function construct's arguments for its code and runtime."""
    arm = options.architecture == "arm64"
    architecture = lambda_.Architecture.ARM_64 if arm else lambda_.Architecture.X86_64
    if options.packaging == "image":
        image = lambda_.Code.from_asset_image(
            str(code.directory),
            build_args={"PYTHON": options.runtime.removeprefix("python")},
            platform=ecr_assets.Platform.LINUX_ARM64 if arm else ecr_assets.Platform.LINUX_AMD64,
            extra_hash=code.digest,
        )
        return {
            "code": image,
            "architecture": architecture,
            "runtime": lambda_.Runtime.FROM_IMAGE,
            "handler": lambda_.Handler.FROM_IMAGE,
        }
    return {
        # The CDK caches its own fingerprints by inode, size and time of change. All files of a package have the same
        # time, so the CDK could miss a changed file.
        "code": lambda_.Code.from_asset(str(code.directory), asset_hash=code.digest),
        "architecture": architecture,
        "runtime": lambda_.Runtime.PROVIDED_AL2023
        if options.runtime == "local"
        else lambda_.Runtime(options.runtime, lambda_.RuntimeFamily.PYTHON),
        "handler": HANDLER,
    }
