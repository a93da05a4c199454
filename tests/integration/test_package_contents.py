"""The files of each distribution in a package: enough to run, and little else."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import platform
import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Literal

import pytest

from infra.package.builder import Package, build
from infra.package.bytecode import compile_all, find_interpreter
from infra.package.errors import PackageError
from infra.package.package_platform import Platform
from infra.package.selection import Selection
from tests.support.backends import INI, make_backend

if TYPE_CHECKING:
    from pathlib import Path

# Two packages are built for most of them, in one worker.
pytestmark = pytest.mark.xdist_group("package-contents")

THIS_MACHINE = Platform()
INTERPRETER: str = getattr(sys, "_base_executable", sys.executable)


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("sqlalchemy\nalembic\nboto3", id="new"),
        pytest.param("sqlalchemy==2.0.31\nalembic==1.13.0\nboto3==1.34.0", id="old", marks=pytest.mark.stress),
    ],
)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package of a backend, with the newest libraries or the oldest that the function works with."""
    folder = tmp_path_factory.mktemp("package")
    backend = make_backend(folder / "shop", **{"requirements.txt": f"{request.param}\n"})
    return build(backend, folder / "out", THIS_MACHINE)


def run(package: Package, code: str, folder: str = "backend-libraries") -> list[str]:
    """Return the output of code that can import only the function's code and one set of libraries."""
    path = "sys.path[:0] = [sys.argv[1], sys.argv[2]]; import lambda_migrate; sys.path.remove(sys.argv[2])"
    command = [INTERPRETER, "-I", "-S", "-B", "-c", f"import sys; {path}; sys.path.remove(sys.argv[3])\n{code}"]
    sets = (package.directory / folder, package.directory, package.directory / "libraries")
    done = subprocess.run([*command, *map(str, sets)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def magic_number(platform: Platform) -> bytes:
    """Return the magic number of the platform's bytecode; empty if this machine lacks its interpreter."""
    interpreter = find_interpreter(platform)
    if interpreter is None:
        return b""
    code = "import importlib.util, sys; sys.stdout.buffer.write(importlib.util.MAGIC_NUMBER)"
    return subprocess.run([interpreter.executable, "-c", code], capture_output=True, check=True).stdout


@pytest.mark.stress
@pytest.mark.parametrize(
    "python, architecture",
    [
        pytest.param("3.12", "x86_64", marks=pytest.mark.stress),
        ("3.13", "arm64"),
        pytest.param("3.14", "arm64", marks=pytest.mark.stress),
    ],
    ids=str,
)
def test_wheels_and_bytecode_are_the_targets(
    tmp_path: Path, python: str, architecture: Literal["arm64", "x86_64"]
) -> None:
    platform = Platform(python, architecture)
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": "sqlalchemy==2.0.44\nalembic\n"})
    built = build(backend, tmp_path / "out", platform)

    machine = {"arm64": 183, "x86_64": 62}[architecture]
    libraries = [path for path in built.directory.rglob("*.so*") if path.is_file()]
    assert len(libraries) > 10
    assert {int.from_bytes(path.read_bytes()[18:20], "little") for path in libraries} == {machine}
    tags = {path.name.split(".")[1] for path in libraries if ".cpython-" in path.name}
    assert {tag.split("-")[1] for tag in tags} == {python.replace(".", "")}

    bytecode = list(built.directory.rglob("*.pyc"))
    magic = magic_number(platform)
    assert {path.read_bytes()[:4] for path in bytecode} == ({magic} if magic else set())
    if not magic:
        warning = built.warnings[-1]
        assert warning.startswith(f"there is no Python {python} here to compile with, so each cold start")
        assert "about 1.4 s longer" in warning
    manifest = json.loads((built.directory / "manifest.json").read_text())
    assert (manifest["python"], manifest["architecture"]) == (python, architecture)


def test_bytecode_holds_wherever_the_package_is_unpacked(package: Package) -> None:
    bytecode = list(package.directory.rglob("*.pyc"))
    folders = {"/".join(path.relative_to(package.directory).parts[:2]) for path in bytecode}
    assert folders >= {"backend/app", "backend-libraries/alembic", "libraries/botocore", "lambda_migrate/run"}
    for path in bytecode:
        content = path.read_bytes()
        # PEP 552: a hash of the source that nothing is compared with.
        assert (content[:4], content[4:8]) == (importlib.util.MAGIC_NUMBER, b"\1\0\0\0")
        source = path.relative_to(package.directory).as_posix().removesuffix("c")
        if "/__pycache__/" in source:
            source = f"{source.replace('__pycache__/', '').split('.cpython')[0]}.py"
            assert (package.directory / source).is_file()
        else:
            assert not (package.directory / source).exists()  # nothing is there twice
        assert marshal.loads(content[16:]).co_filename == f"/var/task/{source}"  # noqa: S302 - made a moment ago


@pytest.mark.parametrize(
    "folder, modules",
    [
        ("backend-libraries", "alembic.autogenerate, sqlalchemy.orm, boto3, lambda_migrate.env_py.run_env_py"),
        ("libraries", "psycopg2, botocore.session, lambda_migrate.handler, lambda_migrate.run.supervisor"),
    ],
)
def test_what_runs_has_bytecode_and_is_taken_from_it(package: Package, folder: str, modules: str) -> None:
    code = f"""
import os
import {modules}
root = os.path.dirname(sys.argv[1])
files = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
ours = [file for file in files if file.startswith(root)]
assert len(ours) > 100, ours
import importlib.util
for file in ours:
    if file.endswith(".py") and not os.path.exists(importlib.util.cache_from_source(file)):
        print(file)
"""
    assert run(package, code, folder) == []


def services(package: Package, library: str = "botocore") -> set[str]:
    folder = package.directory / "backend-libraries" / library / "data"
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_botocore_keeps_the_services_that_are_used(package: Package, tmp_path: Path) -> None:
    assert services(package) == {"rds", "s3", "secretsmanager", "sts"}
    data = package.directory / "backend-libraries/botocore/data"
    endpoints = json.loads((data / "endpoints.json").read_text())["partitions"]
    assert {name for partition in endpoints for name in partition["services"]} == services(package)

    models = (
        "import boto3\nboto3.client('ssm')\nboto3.Session().resource(service_name='dynamodb')\nx.client('none')\n"
        "boto3.client(region_name='eu-central-1',\n    service_name = 'sns')\nsession.create_client('sqs')\n"
        "partial(boto3.client, 'kinesis')\nboto3.client(**{'service_name': 'lambda'})\n"
    )
    backend = make_backend(tmp_path / "shop", **{"app/models.py": models, "requirements.txt": "alembic\nboto3\n"})
    found = build(backend, tmp_path / "out", THIS_MACHINE, selection=Selection(aws_services=("kms",)))
    named = {"dynamodb", "kinesis", "kms", "lambda", "rds", "s3", "secretsmanager", "sns", "sqs", "ssm", "sts"}
    assert services(found) == named
    assert services(found, "boto3") == {"dynamodb", "s3", "sns", "sqs"}

    with pytest.raises(PackageError, match=r"^aws_services names s4, which the packaged botocore does not have"):
        build(backend, tmp_path / "out", THIS_MACHINE, selection=Selection(aws_services=("s4",)))


@pytest.mark.stress
def test_botocore_can_keep_all_services(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": "alembic\nboto3\n"})
    built = build(backend, tmp_path / "out", THIS_MACHINE, selection=Selection(aws_services=None))
    assert len(services(built)) > 300


def test_a_file_has_the_same_bytecode_alone_and_among_others(tmp_path: Path) -> None:
    # Later Pythons see to that themselves.
    interpreter = find_interpreter(Platform("3.10", "x86_64")) or find_interpreter(THIS_MACHINE)
    assert interpreter is not None
    # Whoever compiles those of the second kind has loaded a codec, in which this name is. There are so many that each
    # process has some of them first.
    written = "import somewhere\nsomewhere.decoding_table\n"
    others = [f"a{number}.py" for number in range(2 * (os.cpu_count() or 1))]
    made = set()
    for beside in ([], others):
        folder = tmp_path / f"beside {len(beside)}"
        folder.mkdir()
        (folder / "b.py").write_text(written)
        for name in beside:
            (folder / name).write_text("# coding: koi8_r\n")
        compile_all(folder, dict.fromkeys(["b.py", *beside], "whole"), interpreter)
        [bytecode] = (folder / "__pycache__").glob("b.*.pyc")
        made.add(bytecode.read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize(
    "folder, libraries",
    [
        ("backend-libraries", ["sqlalchemy", "alembic", "mako", "boto3", "botocore", "urllib3"]),
        ("libraries", ["psycopg2", "botocore", "urllib3"]),
        (".", ["lambda_migrate"]),
    ],
    ids=["the backend's", "the function's", "the function"],
)
def test_every_module_that_is_packaged_can_be_imported(package: Package, folder: str, libraries: list[str]) -> None:
    """Each packaged module can be imported, except for those that need a distribution that is not packaged."""
    code = f"""
import importlib, pathlib
root = pathlib.Path(sys.argv[1])
if root.name not in ("libraries", "backend-libraries"):
    sys.path[:0] = [str(root), str(root / "libraries"), str(root / "backend-libraries")]
packaged = {{path.name.split(".")[0] for path in root.iterdir()}}
for name in {libraries}:
    for file in sorted((root / name).rglob("*.py*")):
        module = ".".join(file.relative_to(root).with_suffix("").parts)
        if "templates" in module or "__" in module or module == "botocore.crt.auth":  # for awscrt, which it wants
            continue
        try:
            importlib.import_module(module)
        except ImportError as missing:
            if missing.name and missing.name.split(".")[0] in packaged:
                print(module, missing)
    print(name)
"""
    assert run(package, code, folder) == libraries


def dialects(package: Package) -> set[str]:
    folder = package.directory / "backend-libraries/sqlalchemy/dialects"
    return {path.name for path in folder.iterdir() if path.is_dir()}


@pytest.mark.stress
@pytest.mark.parametrize(
    "files, kept",
    [
        pytest.param(
            {"alembic/versions/b2.py": 'import sqlalchemy as sa\nrevision = "b2"\ndown_revision = "a1"\n'},
            set(),
            id="nobody",
        ),
        pytest.param(
            {"app/models.py": "from sqlalchemy.dialects import mysql, sqlite\n"},
            {"mysql", "sqlite"},
            id="an import",
            marks=pytest.mark.stress,
        ),
        pytest.param(
            {"app/models.py": "import sqlalchemy\nsqlalchemy.create_engine('mariadb://x')\n"},
            {"mysql"},
            id="an address",
        ),
        pytest.param(
            {"alembic.ini": f"{INI}[app]\nold = oracle://x\n"}, {"oracle"}, id="alembic.ini", marks=pytest.mark.stress
        ),
        pytest.param(
            {"requirements.txt": "sqlalchemy\nsqlalchemy-utils\n"},
            {"mssql", "mysql", "oracle", "sqlite"},
            id="a requirement",
            marks=pytest.mark.stress,
        ),
    ],
)
def test_sqlalchemy_keeps_the_dialects_that_are_named(tmp_path: Path, files: dict[str, str], kept: set[str]) -> None:
    built = build(make_backend(tmp_path / "shop", **files), tmp_path / "out", THIS_MACHINE)
    assert dialects(built) - {"__pycache__"} == {"postgresql", *kept}


def test_sqlalchemy_keeps_the_dialect_of_an_address_in_the_functions_variables(tmp_path: Path) -> None:
    selection = Selection(environment={"AUDIT_URL": "sqlite:////tmp/audit.db"})
    built = build(make_backend(tmp_path / "shop"), tmp_path / "out", THIS_MACHINE, selection=selection)
    assert "sqlite" in dialects(built)


def test_botocore_works_without_the_documentation_of_its_models(package: Package) -> None:
    models = sorted(package.directory.glob("*libraries/botocore/data/*/*/service-2.json"))
    assert len(models) > 3
    for model in models:
        content = model.read_bytes()
        assert set(re.findall(rb'"documentation": ?("[^"]*"?)', content)) == {b'""'}
    code = """
import boto3, botocore.session
options = dict(region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
client = boto3.client("secretsmanager", **options)
print(client.meta.service_model.operation_model("GetSecretValue").input_shape.members["SecretId"].type_name)
print(boto3.client("rds", **options).generate_db_auth_token("host", 5432, "me").split("?")[0])
print(client.get_secret_value.__doc__ is not None)
for service in botocore.session.get_session().get_available_services():
    for operation in (client := boto3.client(service, **options)).meta.service_model.operation_names:
        client.meta.service_model.operation_model(operation).input_shape
    print(service, client.meta.service_model.client_context_parameters is not None)
print(boto3.client("s3", **options).generate_presigned_url("get_object", {"Bucket": "b", "Key": "k"}).split("?")[0])
"""
    assert run(package, code) == [
        *("string", "host:5432/", "True"),
        *(f"{service} True" for service in ("rds", "s3", "secretsmanager", "sts")),
        "https://s3.amazonaws.com/b/k",
    ]


# The most that the function alone may have, in MiB: unpacked, and zipped as the CDK does it. Raise a number only for
# files that the function needs; `contents.py` leaves out the others.
CEILINGS = {"x86_64": (24.4, 9.3), "aarch64": (29.5, 10.8)}


@pytest.fixture
def function_alone(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A package's folder, and its files without those of the tree."""
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": "alembic\nsqlalchemy\n"})
    folder = build(backend, tmp_path / "out", THIS_MACHINE).directory
    own = {"backend", "graph.json"}
    return folder, [
        path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] not in own
    ]


@pytest.mark.stress
def test_the_function_alone_stays_small(function_alone: tuple[Path, list[Path]]) -> None:
    _, files = function_alone
    unpacked, _ = CEILINGS[platform.machine()]
    assert sum(path.stat().st_size for path in files) / 2**20 < unpacked


@pytest.mark.stress
def test_it_stays_small_as_an_archive(function_alone: tuple[Path, list[Path]], tmp_path: Path) -> None:
    folder, files = function_alone
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            archive.write(path, path.relative_to(folder))
    _, zipped = CEILINGS[platform.machine()]
    assert (tmp_path / "x.zip").stat().st_size / 2**20 < zipped


def test_metadata_list_the_packaged_files(package: Package) -> None:
    for record in package.directory.glob("*/*.dist-info/RECORD"):
        rows = [line.rsplit(",", 2) for line in record.read_text(encoding="utf-8").splitlines()]
        sizes = {path.strip('"'): size for path, _, size in rows}
        assert all(not size or (record.parents[1] / path).stat().st_size == int(size) for path, size in sizes.items())
        assert f"{record.parent.name}/METADATA" in sizes
