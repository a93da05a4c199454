"""README.md and docs/ match the code: their names exist, and their commands run."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from infra.stages import Stage
from lambda_migrate.invocation import errors as contract_errors
from lambda_migrate.invocation import settings, telemetry
from lambda_migrate.invocation.request import ACTIONS
from lambda_migrate.invocation.result import Applied, Result, Revision, RunState
from tests.support.checkout import ROOT, copy_checkout, with_tools
from tests.support.samples import sampled

README = ROOT / "README.md"
CONTRACT = ROOT / "docs" / "contract.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "back" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# What the table of variables says of a default that is no text to set, and what the setting then is.
DEFAULTS_IN_WORDS: dict[str, Any] = {
    "`refuse` for a superuser's login, else `warn`": None,
    "from the secret": None,
    "up to the deadline": None,
    "none": {},
    "by the stack": None,
    "the packaged RDS bundle": settings.RDS_CA_BUNDLE,
}
REQUIRED = {"STAGE": "dev", "DB_SECRET_ID": "a/secret"}

# As the aws command prints them for --query FunctionError --output text.
SUCCEEDED, FAILED = "None", "Unhandled"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def tables(page: Path, first_header: str) -> list[list[str]]:
    """The rows, without the headers, of the tables whose first column has this header."""
    pattern = rf"^\| {first_header} \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)"
    bodies = re.findall(pattern, text_of(page), re.MULTILINE)
    assert bodies, f"{page.name} has no table of {first_header}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for body in bodies for row in body.splitlines()]


def names(cell: str) -> list[str]:
    """Return the code in a table's cell."""
    return re.findall(r"`([^`]+)`", cell)


def first_names(rows: list[list[str]]) -> list[str]:
    return [name for row in rows for name in names(row[0])]


def log_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((ROOT / "docs" / "log-schema.json").read_text(encoding="utf-8"))["$defs"]
    return schema


# --- links and names of commands ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", text_of(page))

    broken = [target for target in targets if not target.startswith("https://") and not leads_somewhere(page, target)]

    assert broken == []


def test_every_heading_that_the_code_refers_to_exists() -> None:
    folders = ("lambda_migrate", "infra", "migrate_cli", "migrate_review")
    sources = "".join(text_of(file) for folder in folders for file in (ROOT / folder).rglob("*.py"))
    referred = set(re.findall(r"\b(docs/[\w-]+\.md#[\w-]+)", sources))

    assert referred
    assert [target for target in sorted(referred) if not leads_somewhere(ROOT / "README.md", target)] == []


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    return file.exists() and (not anchor or anchor in anchors(file))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_command_is_a_target_of_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    code = [*blocks(page, "sh"), *re.findall(r"`(make [^`]+)`", text_of(page))]

    shown = {target for piece in code for target in re.findall(r"\bmake ([a-z][a-z-]*)", piece)}

    assert shown <= targets


def test_every_module_of_the_function_has_its_line_in_the_architecture() -> None:
    modules = [file.name for file in (ROOT / "lambda_migrate").rglob("*.py") if file.name != "__init__.py"]

    assert sorted(first_names(tables(ARCHITECTURE, "module"))) == sorted(modules)


def test_every_module_of_the_builder_has_its_line_in_the_architecture() -> None:
    modules = [file.name for file in (ROOT / "infra" / "package").glob("*.py")]
    written = [name for row in tables(ARCHITECTURE, "file") for name in names(row[0])]

    assert sorted([*written, "__init__.py", "builder.py"]) == sorted(modules)


def test_every_folder_with_code_has_its_line_in_the_architecture() -> None:
    folders = {f"{file.parent.name}/" for file in ROOT.glob("*/*.py")}

    assert folders <= {*first_names(tables(ARCHITECTURE, "path"))}


# --- the function's variables ---


def documented_defaults() -> dict[str, str]:
    return {names(row[0])[0]: row[-1] for row in tables(CONTRACT, "variable")}


def variables_by_setting() -> dict[str, str]:
    """Return the variable of each field of Settings, by the calls in the one function that reads them."""
    module = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    [function] = [
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name == settings.read_settings.__name__
    ]
    [call] = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == settings.Settings.__name__
    ]
    return {
        str(field.arg): variable
        for field in call.keywords
        for variable in sorted({variable for node in ast.walk(field.value) for variable in read_by(node)})
    }


def read_by(node: ast.AST) -> list[str]:
    """The variable that a call such as ``reader.text("DB_HOST")`` reads."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.args[0], ast.Constant):
        return [str(node.args[0].value)]
    return []


def test_every_variable_is_documented_and_every_documented_one_is_read() -> None:
    assert sorted(documented_defaults()) == sorted(variables_by_setting().values())


@pytest.mark.parametrize("field,variable", sorted(variables_by_setting().items()))
def test_a_variable_has_the_documented_default(field: str, variable: str) -> None:
    default = documented_defaults()[variable]
    without = settings.read_settings(REQUIRED)

    if default == "required":
        with pytest.raises(contract_errors.ConfigurationError, match=variable):
            settings.read_settings({name: value for name, value in REQUIRED.items() if name != variable})
    elif default in DEFAULTS_IN_WORDS:
        assert getattr(without, field) == DEFAULTS_IN_WORDS[default]
    else:
        assert settings.read_settings({**REQUIRED, variable: names(default)[0]}) == without


def test_every_placeholder_is_documented() -> None:
    section = text_of(CONTRACT).partition("### How env.py gets its address")[2].partition("\n## ")[0]

    assert set(re.findall(r"`\{(\w+)\}`", section)) == set(settings.PLACEHOLDERS)


# --- events, results, errors ---


def test_every_action_is_documented_with_its_fields() -> None:
    rows = [row for row in tables(CONTRACT, "action") if len(row) == 3]

    assert {names(row[0])[0]: frozenset(names(row[2])) for row in rows} == dict(ACTIONS)


def test_the_documented_result_has_the_fields_of_a_result() -> None:
    [documented] = [json.loads(block) for block in blocks(CONTRACT, "json") if '"status"' in block]
    revision = Revision("9ab1", "Add a table")
    result = Result("upgrade", "dev", None, RunState("db", (), ("9ab1",), done=(Applied(revision, 1),)))

    real = result.as_json(duration_ms=1, request_id="1")

    assert list(documented) == list(real)
    assert documented["applied"][0].keys() == real["applied"][0].keys()


def error_classes() -> dict[str, type[contract_errors.MigrationError]]:
    found = [value for value in vars(contract_errors).values() if isinstance(value, type)]
    return {error.__name__: error for error in found if issubclass(error, contract_errors.MigrationError)}


def test_every_error_is_documented_and_every_documented_one_exists() -> None:
    assert sorted(first_names(tables(CONTRACT, "errorType"))) == sorted(error_classes())


@pytest.mark.parametrize("name,error", sorted(error_classes().items()))
def test_the_documents_say_whether_a_retry_helps(name: str, error: type[contract_errors.MigrationError]) -> None:
    [retry] = [row[-1] for row in tables(CONTRACT, "errorType") if names(row[0]) == [name]]

    assert (retry in {"yes", "maybe"}) is error.retry_helps


# --- logs and metrics ---


def test_the_schemas_events_are_those_that_the_code_may_log() -> None:
    assert sorted(log_schema()["happened"]["properties"]["event"]["enum"]) == sorted(get_args(telemetry.Event))


def test_every_event_is_documented_and_every_documented_one_exists() -> None:
    assert sorted(first_names(tables(CONTRACT, "event"))) == sorted(get_args(telemetry.Event))


def test_every_field_of_a_log_line_is_documented_and_every_documented_one_exists() -> None:
    section = text_of(CONTRACT).partition("\n## Logs and metrics\n")[2].partition("\n| metric |")[0]
    fields = section.partition("\n| field | meaning |\n")[2]
    documented = [name for row in fields.splitlines() if row.startswith("|") for name in names(row.split("|")[1])]

    assert sorted(documented) == sorted(log_schema()["happened"]["properties"])


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    assert set(first_names(tables(CONTRACT, "metric"))) == log_schema()["metrics"]["properties"].keys() - {
        "_aws",
        "service",
        "stage",
    }


# --- what the README shows can be done ---


def test_the_stage_shown_in_the_readme_is_one_that_can_be_deployed() -> None:
    [shown] = [json.loads(block) for block in blocks(README, "json")]

    for stage in shown.values():
        Stage.model_validate(stage)


@pytest.fixture(scope="module")
def checkout(shared_run: Path) -> Path:
    return copy_checkout(shared_run / "docs")


def make_commands(*targets: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks(README, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(tuple(f"make {target}" for target in targets))]


@pytest.mark.stress
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("command", sampled(make_commands("package", "synth"), make_commands("package")))
def test_a_make_command_of_the_readme_runs(checkout: Path, command: str) -> None:
    # What is installed is linked into the copy: its Makefile must not take it for its own to set up.
    environment = {**with_tools(dict(os.environ)), "MAKEFLAGS": "-- TOOLS="}

    done = subprocess.run(
        ["bash", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    revisions = len(list((ROOT / "back" / "alembic" / "versions").glob("*.py")))
    expected = "AWS::Lambda::Function" if "synth" in command else f"revisions  {revisions}\n"
    assert expected in done.stdout


def test_the_readme_shows_how_to_package_and_to_synthesize() -> None:
    """The test above finds commands to run. Without any it would pass."""
    assert [command.split()[1] for command in make_commands("package", "synth")] == ["package", "synth"]


# --- the guard for CI ---


def guard() -> str:
    [shown] = [block for block in blocks(README, "sh") if "FunctionError" in block]
    return shown


def run_guard(folder: Path, *, prints: str, exits: int, result: object) -> subprocess.CompletedProcess[str]:
    """Run the README's lines and then `after` in a shell, with a program in place of aws that gives this answer."""
    answer = folder / "answer.json"
    answer.write_text(json.dumps(result), encoding="utf-8")
    stub = folder / "aws"
    stub.write_text(
        "#!/bin/bash\n"
        'printf "%s\\n" "$@" > arguments.txt\n'
        f"[ {exits} = 0 ] || {{ echo 'Unable to locate credentials' >&2; exit {exits}; }}\n"
        'cp answer.json "${!#}"\n'  # the last argument
        f"echo {prints}\n",
        encoding="utf-8",
    )
    stub.chmod(0o755)
    environment = {"PATH": os.pathsep.join([str(folder), os.defpath])}
    script = f"{guard()}\necho deployed"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_guard_lets_a_pipeline_go_on_when_the_migration_succeeded(tmp_path: Path) -> None:
    done = run_guard(tmp_path, prints=SUCCEEDED, exits=0, result={"status": "ok"})

    assert (done.returncode, done.stdout, done.stderr) == (0, "deployed\n", "")


def test_the_guard_stops_a_pipeline_and_shows_the_error_when_the_migration_failed(tmp_path: Path) -> None:
    error = {"errorType": "MigrationFailed", "errorMessage": "revision 9ab1 failed"}

    done = run_guard(tmp_path, prints=FAILED, exits=0, result=error)

    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr) == error


def test_the_guard_stops_a_pipeline_when_the_command_itself_failed(tmp_path: Path) -> None:
    done = run_guard(tmp_path, prints="", exits=253, result={"status": "ok"})

    assert (done.returncode, done.stdout, done.stderr) == (253, "", "Unable to locate credentials\n")


def test_the_command_shown_waits_for_the_function_and_names_it_as_the_stack_does(tmp_path: Path) -> None:
    run_guard(tmp_path, prints=SUCCEEDED, exits=0, result={})

    arguments = (tmp_path / "arguments.txt").read_text(encoding="utf-8").splitlines()

    assert arguments[:4] == ["lambda", "invoke", "--function-name", "template-saas-api-migrate-lambda-dev"]
    assert arguments[arguments.index("--cli-read-timeout") + 1] == "910"
