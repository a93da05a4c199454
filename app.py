"""The CDK's entry: `cdk deploy -c stage=dev` builds the function's package for that stage, and its stack.

If the settings or the backend's tree cannot be deployed, it exits with one line on standard error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import aws_cdk as cdk

from infra.code import Code, build_code
from infra.deployed import refuse_another_packaging
from infra.errors import StageError
from infra.package.errors import PackageError
from infra.stack import MigrateStack
from infra.stages import Stage, read_project

if TYPE_CHECKING:
    from infra.names import Names

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Synthesize the stack of the stage in the context."""
    app = cdk.App()
    name = str(app.node.try_get_context("stage") or "")
    try:
        project = read_project(app.node.try_get_context("project"))
        stage = _tried(app, project.stage(name))
        names = project.names(name)
        if app.node.try_get_context("aside") == "true":
            names = names.moved_aside
        elif stage.runtime != "local":
            refuse_another_packaging(names, stage.packaging)
        _stack(app, names, stage, _package(name, stage))
    except (StageError, PackageError) as error:
        sys.exit(f"error: {error}")
    app.synth()


def _tried(app: cdk.App, stage: Stage) -> Stage:
    """Return stage local with the backend and the variables of `make migrate BACKEND=... ENV=...`."""
    backend, environment = (app.node.try_get_context(key) for key in ("backend", "environment"))
    if stage.runtime != "local" or not (backend or environment):
        return stage
    variables = json.loads(Path(environment).read_text(encoding="utf-8")) if environment else {}
    return stage.model_copy(update={"backend": backend or stage.backend, "environment": variables})


def _package(name: str, stage: Stage) -> Code:
    bundle = ROOT / stage.database.ca_bundle if stage.database.ca_bundle else None
    if bundle and not bundle.is_file():
        raise StageError(f"cdk.json: project.stages.{name}.database.ca_bundle: there is no file {bundle}")
    return build_code(stage, ROOT / stage.backend, ROOT / ".local" / "package" / name, bundle)


def _stack(app: cdk.App, names: Names, stage: Stage, package: Code) -> None:
    stack = MigrateStack(
        app,
        names.stack,
        names=names,
        stage=stage,
        package=package.directory,
        asset_hash=package.digest,
        env=cdk.Environment(account=stage.account, region=stage.region),
    )
    for number, warning in enumerate(package.warnings, 1):
        cdk.Annotations.of(stack).add_warning_v2(f"template-saas:package-{number}", warning)


if __name__ == "__main__":
    main()
