"""The CDK's entry: `cdk deploy -c stage=dev` builds the function's package for that stage, and its stack.

Exits with one line on standard error when the settings or the backend's tree are not fit to be deployed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import aws_cdk as cdk

from infra.package import IMAGE, Package, PackageError, Selection, Target, build
from infra.stack import CA_BUNDLE_IN_PACKAGE, MigrateStack
from infra.stages import Project, Stage, StageError, read_project

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Synthesize the stack of the stage that the context names."""
    app = cdk.App()
    name = str(app.node.try_get_context("stage") or "")
    try:
        project = read_project(app.node.try_get_context("project"))
        stage = project.stage(name)
        package = _package(name, stage)
    except (StageError, PackageError) as error:
        sys.exit(f"error: {error}")
    _stack(app, project, name, stage, package)
    app.synth()


def _package(name: str, stage: Stage) -> Package:
    extra_files = {}
    if stage.database.ca_bundle:
        bundle = ROOT / stage.database.ca_bundle
        if not bundle.is_file():
            raise StageError(f"cdk.json: project.stages.{name}.database.ca_bundle: there is no file {bundle}")
        extra_files[CA_BUNDLE_IN_PACKAGE] = bundle
    if stage.runtime == "local":
        extra_files["bootstrap"] = ROOT / "localcloud" / "bootstrap.py"
        target = Target()
    else:
        target = Target(python=stage.runtime.removeprefix("python"), architecture=stage.architecture)
    if stage.packaging == "image":
        extra_files["Dockerfile"] = IMAGE
    selection = Selection(
        dependency_group=stage.dependency_group,
        traced=stage.requirements == "traced",
        environment=stage.environment,
        aws_services=None if "all" in stage.aws_services else tuple(stage.aws_services),
        limited=stage.packaging == "zip",
    )
    return build(
        ROOT / stage.backend,
        ROOT / ".local" / "package" / name,
        target,
        config=stage.alembic_config,
        extra_files=extra_files,
        selection=selection,
    )


def _stack(app: cdk.App, project: Project, name: str, stage: Stage, package: Package) -> None:
    names = project.names(name)
    stack = MigrateStack(
        app,
        names.stack,
        names=names,
        stage=stage,
        package=package.directory,
        asset_hash=package.digest,
        env=cdk.Environment(account=stage.account, region=stage.region),
    )
    for warning in package.warnings:
        cdk.Annotations.of(stack).add_warning_v2("template-saas:no-bytecode", warning)


if __name__ == "__main__":
    main()
