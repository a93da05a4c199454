"""Common layouts of backends: what the builder finds by itself, and its messages about other cases."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from alembic.config import Config
from uv import find_uv_bin

from demo import backend as demo_backend
from demo import review
from infra.package import flask_app, lock_discovery
from infra.package.builder import build
from infra.package.data_files import named_files, unpackaged_files
from infra.package.errors import PackageError
from infra.package.graph import read_graph
from infra.package.imports import backend_files
from infra.package.layout import find_config, read_layout, search_folder
from infra.package.package_platform import Platform
from infra.package.requirements import read_requirements
from infra.package.resolving import backend_pins
from infra.package.selection import Selection
from lambda_migrate.env_py.current_app import is_needed
from lambda_migrate.env_py.flask_app import set_script_location
from tests.support.backends import ENV, INI, REVISION, lock, make_backend, write
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.functions import Runner

PYPROJECT = '[tool.alembic]\nscript_location = "%(here)s/alembic"\nprepend_sys_path = ["."]\n'
WORKSPACE = "[tool.uv.workspace]\nmembers = ['api', 'worker']\n"
FLASK = "from flask import current_app\ndef get_engine():\n    return current_app.extensions['migrate'].db.engine\n"


def reading(path: str) -> str:
    """A revision that reads a file by a path relative to the backend."""
    return upgrading(f"(Path(__file__).parents[2] / {' / '.join(map(repr, path.split('/')))}).read_text()")


def upgrading(line: str) -> str:
    return f"{REVISION.replace('...', '')}    {line}\n"


def unpackaged(backend: Path) -> list[str]:
    layout = read_layout(backend)
    return unpackaged_files(layout, backend_files(layout))


@pytest.mark.parametrize(
    "revision, found",
    [
        (reading("sql/init.sql"), ["sql/init.sql"]),
        (reading("data/seed.csv"), ["data/seed.csv"]),
        (reading("app/rows.sql"), []),
        (reading("alembic/rows.sql"), []),
        (upgrading("open('./sql/init.sql')"), ["sql/init.sql"]),
        (upgrading("open(os.path.join('data', 'seed.csv'))"), ["data/seed.csv"]),
        (upgrading("[file.read_text() for file in Path('sql').glob('*.sql')]"), ["sql/"]),
        (upgrading("open(f'sql/{revision}.sql')"), ["sql/"]),
        (upgrading("op.execute('ANALYZE data')"), []),
    ],
    ids=["parents", "another", "packaged", "in the tree", "relative", "joined", "a folder", "formatted", "no reading"],
)
def test_files_that_revisions_read_outside_the_tree_are_found(tmp_path: Path, revision: str, found: list[str]) -> None:
    files = {"sql/init.sql": "", "data/seed.csv": "", "app/rows.sql": "", "alembic/rows.sql": "", "README.md": ""}
    backend = make_backend(tmp_path / "shop", **files, **{"alembic/versions/a1_first.py": revision})
    assert unpackaged(backend) == found


def test_the_requirements_of_the_repository_are_not_those_of_a_project_that_lists_its_own(tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\nversion = "1"\n'
    backend = make_backend(tmp_path / "shop/api", **{"pyproject.toml": project})
    (backend / "requirements.txt").unlink(missing_ok=True)
    write(tmp_path / "shop", **{"requirements.txt": "fastapi\n", ".git/HEAD": ""})
    assert lock_discovery.find(backend) == tmp_path / "shop/requirements.txt"
    write(backend, **{"pyproject.toml": f'{project}dependencies = ["alembic"]\n'})
    assert lock_discovery.find(backend) == backend / "pyproject.toml"
    for its_lock in ("# compiled\nAlembic==1.13.3\nmako==1.3.5\n", "-r requirements/prod.txt\n"):
        write(tmp_path / "shop", **{"requirements.txt": its_lock})
        assert lock_discovery.find(backend) == tmp_path / "shop/requirements.txt"
    write(tmp_path / "shop", **{"requirements.txt": "fastapi\n", "poetry.lock": ""})
    assert lock_discovery.find(backend) == tmp_path / "shop/poetry.lock"


@pytest.mark.parametrize(
    "files, found",
    [
        (("acme/models.py", "lib/acme/util.py"), ["acme/models.py", "lib/acme/util.py"]),
        (("acme/models.py", "lib/acme/__init__.py"), ["lib/acme/__init__.py"]),
        (("acme/__init__.py", "lib/acme/util.py"), ["acme/__init__.py"]),
        (("acme/models.py", "lib/acme.py"), ["lib/acme.py"]),
    ],
)
def test_folders_of_one_name_are_the_package_that_python_makes_of_them(
    tmp_path: Path, files: tuple[str, str], found: list[str]
) -> None:
    ini = INI.replace("prepend_sys_path = .", "prepend_sys_path = .:lib")
    backend = make_backend(
        tmp_path / "shop",
        **{"alembic.ini": ini, "alembic/env.py": f"{ENV}import acme.util\n", **dict.fromkeys(files, "")},
    )
    packaged = [path.relative_to("backend").as_posix() for path in backend_files(read_layout(backend))]
    assert sorted(path for path in packaged if "acme" in path) == found


def test_package_files_are_packaged_and_the_warning_names_the_others(tmp_path: Path) -> None:
    files = {"sql/init.sql": "SELECT 1", "sql/more/x.sql": "", "data/seed.csv": "", "sql/.env": "secret"}
    second = reading("data/seed.csv").replace("None", '"a1"').replace('revision = "a1"', 'revision = "b2"', 1)
    backend = make_backend(
        tmp_path / "shop",
        **files,
        **{"alembic/versions/a1_first.py": reading("sql/init.sql"), "alembic/versions/b2.py": second},
        **{"requirements.txt": "alembic\nsqlalchemy\n"},
    )

    built = build(backend, tmp_path / "out", Platform(), selection=Selection(package_files=("sql/*.sql",)))

    packaged = built.directory / "backend"
    assert (packaged / "sql/init.sql").read_text() == "SELECT 1"
    assert not (packaged / "data/seed.csv").exists()
    [warning] = [each for each in built.warnings if "package_files" in each]
    assert "data/seed.csv" in warning
    assert "sql/init.sql" not in warning


@pytest.mark.parametrize(
    "globs, packaged",
    [
        (["sql/*.sql"], {"sql/a.sql"}),
        (["sql/**"], {"sql/a.sql", "sql/more/b.sql"}),
        (["./sql/"], {"sql/a.sql", "sql/more/b.sql"}),
        (["**/*.csv", "sql/?.sql"], {"sql/a.sql", "x.csv", "data/y.csv"}),
    ],
)
def test_patterns_of_package_files(tmp_path: Path, globs: list[str], packaged: set[str]) -> None:
    files = ("sql/a.sql", "sql/more/b.sql", "x.csv", "data/y.csv", "sql/.hidden", "sql/key.pem")
    backend = make_backend(tmp_path / "shop", **dict.fromkeys(files, ""))
    found = named_files(read_layout(backend), globs)
    assert {path.relative_to("backend").as_posix() for path in found} == packaged


@pytest.mark.parametrize("glob", ["gone/*.sql", ".env", "../elsewhere"])
def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path, glob: str) -> None:
    backend = make_backend(tmp_path / "shop", **{".env": "secret"})
    with pytest.raises(PackageError, match=r"^package_files: .* matches no file of "):
        named_files(read_layout(backend), [glob])


def test_the_configuration_is_found(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop", **{"pyproject.toml": PYPROJECT})
    assert read_layout(backend).config_files[0].name == "alembic.ini"
    (backend / "alembic.ini").rename(backend / "db.ini")
    assert read_layout(backend).config_files[0].name == "pyproject.toml"
    assert read_layout(backend, "db.ini").config_files[0].name == "db.ini"
    (backend / "pyproject.toml").write_text("[tool.ruff]\n")
    with pytest.raises(PackageError, match=r"^no alembic\.ini in .*, but db\.ini; name one in .*: db\.ini "):
        read_layout(backend)
    (backend / "db.ini").unlink()
    with pytest.raises(PackageError, match=r"^no alembic\.ini in .* and no pyproject\.toml with \[tool\.alembic\]"):
        read_layout(backend)


def test_a_named_configuration_belongs_to_the_backend_that_has_a_lock(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": "alembic\nsqlalchemy\n"})
    write(backend, **{"services/alembic.ini": INI.replace("%(here)s/", ""), "services/requirements.txt": "alembic\n"})
    (backend / "alembic.ini").unlink()
    shutil.copytree(backend / "alembic", backend / "services" / "alembic")

    named = read_layout(backend, "services/alembic.ini")

    assert (named.working_folder, named.tree) == (backend, backend / "alembic")
    assert read_layout(backend).tree == backend / "services" / "alembic"
    assert read_requirements(backend, beside=search_folder(backend, "services/alembic.ini", is_named=True)).lock == (
        backend / "requirements.txt"
    )


def test_a_tree_of_an_example_is_not_the_backends(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop")
    (backend / "examples").mkdir()
    (backend / "alembic.ini").rename(backend / "examples" / "alembic.ini")

    with pytest.raises(PackageError, match=r"^no alembic\.ini in .* and no pyproject\.toml with \[tool\.alembic\]"):
        find_config(backend)


def below(folder: Path, at: str, **files: str) -> Path:
    """A backend whose tree, modules and lock are all in a folder of it."""
    make_backend(folder / at, **{"alembic.ini": INI.replace("%(here)s/", ""), **files})
    return folder


def test_the_only_configuration_below_is_found_with_its_lock_and_its_folder(tmp_path: Path) -> None:
    files = {
        ".git/HEAD": "",
        "requirements.txt": "mkdocs\n",
        ".venv/alembic.ini": "",
        "pyproject.toml": "[tool.ruff]\n",
    }
    repository = below(tmp_path / "shop", "services/api")
    write(repository, **files)
    layout = read_layout(repository)
    assert layout.working_folder == repository / "services/api"
    assert layout.packaged(layout.tree).as_posix() == "backend/services/api/alembic"
    built = build(repository, tmp_path / "out", Platform())
    assert (built.directory / "backend/services/api/app/models.py").is_file()
    assert "mkdocs" not in {one.name for one in built.distributions}
    # Of several, one is named.
    write(repository, **{"worker/alembic.ini": INI})
    with pytest.raises(
        PackageError, match=r"but worker/alembic\.ini, services/api/alembic\.ini; name one .*: worker/al"
    ):
        build(repository, tmp_path / "another", Platform())


def test_a_configuration_below_is_run_in_the_folder_of_its_project(tmp_path: Path) -> None:
    repository = make_backend(tmp_path / "shop", **{"src/db/alembic.ini": INI.replace("here)s", "here)s/../..")})
    (repository / "alembic.ini").unlink()
    assert read_layout(repository).working_folder == repository
    write(repository, **{"src/pyproject.toml": "[project]\nname = 'shop'\n"})
    assert read_layout(repository).working_folder == repository / "src"


def test_a_member_of_a_workspace_below_gets_its_own_dependencies(tmp_path: Path) -> None:
    member = "[project]\nname = '{}'\nversion = '1'\nrequires-python = '>=3.10'\ndependencies = {}\n"
    repository = below(tmp_path / "shop", "api", **{"pyproject.toml": member.format("api", ["alembic", "sqlalchemy"])})
    write(repository, **{"worker/pyproject.toml": member.format("worker", ["markdown"])})
    (repository / "api/requirements.txt").unlink()
    lock(repository, "packaging")
    write(repository, **{"pyproject.toml": (repository / "pyproject.toml").read_text() + WORKSPACE})
    subprocess.run([find_uv_bin(), "lock", "--quiet", "--python", sys.executable], cwd=repository, check=True)
    read = read_requirements(repository, beside=repository / "api")
    assert "alembic" in read.names
    assert read.names.isdisjoint({"markdown", "packaging"})


def test_a_uv_lock_without_a_project_is_passed_over(tmp_path: Path) -> None:
    stray = tmp_path / "uv.lock"
    stray.touch()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".git").mkdir()
    backend = make_backend(tmp_path / "shop", **{"uv.lock": 'version = 1\nrevision = 3\nrequires-python = ">=3.12"\n'})
    (backend / "requirements.txt").unlink()
    assert lock_discovery.find(backend) == stray
    (backend / "pyproject.toml").touch()
    assert lock_discovery.find(backend) == backend / "uv.lock"


@pytest.mark.parametrize(
    "lines, has",
    [
        ("alembic==1.6.5\nsqlalchemy==1.3.24 \\\n    --hash=sha256:00\n", "alembic==1.6.5 and sqlalchemy==1.3.24"),
        ("alembic\nSQLAlchemy[asyncio]==1.4.0b3\n", "SQLAlchemy[asyncio]==1.4.0b3"),
        ("alembic\nsqlalchemy<1.4.0 ; python_version > '3'\n", "sqlalchemy<1.4.0"),
        ("alembic ~= 1.6.2\nsqlalchemy >1.3, <2\n", "alembic ~= 1.6.2"),
    ],
)
def test_all_that_is_too_old_is_named_at_once(tmp_path: Path, lines: str, has: str) -> None:
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": lines})
    with pytest.raises(PackageError, match=rf"^requirements\.txt has {re.escape(has)}, but the function needs [as]"):
        backend_pins(read_requirements(backend), Platform("3.13", "arm64"))


def test_the_function_takes_the_configuration_that_was_found(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop", **{"pyproject.toml": PYPROJECT})
    (backend / "alembic.ini").unlink()
    built = build(backend, tmp_path / "out", Platform())
    assert json.loads((built.directory / "manifest.json").read_text())["config"] == "backend/pyproject.toml"


@pytest.mark.parametrize(
    "files, guess",
    [
        ({".flaskenv": "FLASK_APP=app.models\n"}, '{"FLASK_APP": "app.models"}'),
        ({"serve.py": "app = Flask(__name__)\n", "manage.py": "app = make()\nMigrate(app, db)\n"}, '"manage.py"'),
        ({"app/factory.py": "def create_app():\n    return Flask(__name__)\n"}, '"app.factory"'),
        (
            {"app/__init__.py": "Migrate()\ndef create_app(app): ...\n", "wsgi_app.py": "app = Flask('x')\n"},
            '"wsgi_app.py"',
        ),
        ({}, '"module:name"}, where module:name is the application or its factory'),
    ],
    ids=["flaskenv", "Migrate", "a factory", "a factory with arguments", "none"],
)
def test_a_flask_application_to_name_is_suggested(tmp_path: Path, files: dict[str, str], guess: str) -> None:
    backend = make_flask_backend(tmp_path / "shop", **files)
    layout = read_layout(backend)
    assert (layout.tree, layout.working_folder) == (backend / "migrations", backend)
    with pytest.raises(PackageError, match=r"^migrations/env\.py reads flask\.current_app") as refused:
        flask_app.find(layout, {})
    assert guess in str(refused.value)


@pytest.mark.parametrize("name", ["shop", "shop:make('x')", "shop/__init__.py", "shop.start", "shop/start.py:app"])
def test_the_module_of_a_flask_application_is_packaged(tmp_path: Path, name: str) -> None:
    backend = make_flask_backend(tmp_path / "shop", **{"shop/__init__.py": "", "shop/start.py": "import app.models\n"})
    layout = read_layout(backend)
    with_app = replace(layout, flask_app=flask_app.find(layout, {"FLASK_APP": name}))
    packaged = {path.as_posix() for path in backend_files(with_app)}
    assert {"backend/shop/__init__.py", "backend/shop/start.py", "backend/app/models.py"} <= packaged
    with pytest.raises(PackageError, match="names gone, which is no module below"):
        flask_app.find(layout, {"FLASK_APP": "gone"})


def make_flask_backend(folder: Path, **files: str) -> Path:
    backend = make_backend(folder, **files)
    (backend / "alembic.ini").unlink()
    (backend / "alembic").rename(backend / "migrations")
    write(backend, **{"migrations/alembic.ini": "[alembic]\n", "migrations/env.py": FLASK})
    return backend


def test_flask_migrates_folder_counts_and_not_a_script_location_of_the_file(tmp_path: Path) -> None:
    ini = "[alembic]\nscript_location = alembic\n"
    backend = make_flask_backend(tmp_path / "shop", **{"wsgi.py": "app = Flask(__name__)\n"})
    write(backend, **{"migrations/alembic.ini": ini})
    assert read_layout(backend).tree == backend / "migrations"
    config = Config(str(backend / "migrations/alembic.ini"))
    set_script_location(config, backend / "migrations/alembic.ini")
    assert config.get_main_option("script_location") == str(backend / "migrations")
    # Other trees keep theirs.
    write(backend, **{"migrations/env.py": ENV})
    config = Config(str(backend / "migrations/alembic.ini"))
    set_script_location(config, backend / "migrations/alembic.ini")
    assert config.get_main_option("script_location") == "alembic"


def test_a_package_of_a_project_below_the_backend_has_the_tree(tmp_path: Path) -> None:
    repository = below(
        tmp_path / "shop", "server", **{"alembic.ini": "[alembic]\nscript_location = shop.db:migrations\n"}
    )
    write(repository / "server", **{"pyproject.toml": "[project]\nname = 'shop'\n", "shop/db/__init__.py": ""})
    (repository / "server/alembic").rename(repository / "server/shop/db/migrations")
    layout = read_layout(repository)
    assert layout.packaged(layout.tree).as_posix() == "backend/server/shop/db/migrations"


def test_revisions_in_folders_below_are_named(tmp_path: Path) -> None:
    write(tmp_path, **{"versions/2026/a1.py": REVISION, "versions/2026/__pycache__/a1.cpython-311.pyc": ""})
    with pytest.raises(PackageError, match=r"^no revision in versions, but in folders below it; .* recursive_version_"):
        read_graph([tmp_path / "versions"], relative_to=tmp_path)


def test_a_sourceless_tree_is_named(tmp_path: Path) -> None:
    bytecode = tmp_path / "versions" / "__pycache__"
    write(tmp_path, **{"versions/__pycache__/a1_first.cpython-311.pyc": ""})
    with pytest.raises(PackageError, match=r"^versions/__pycache__/a1_first\.cpython-311\.pyc has no source"):
        read_graph([tmp_path / "versions"], relative_to=tmp_path)
    write(tmp_path, **{"versions/a1_first.py": REVISION, "versions/b2.pyc": ""})
    assert bytecode.is_dir()
    assert read_graph([tmp_path / "versions"], relative_to=tmp_path).heads == ("a1",)
    with pytest.raises(PackageError, match=r"^versions/b2\.pyc has no source"):
        read_graph([tmp_path / "versions"], relative_to=tmp_path, sourceless=True)


def test_another_requirements_file(tmp_path: Path) -> None:
    more = {"requirements/prod.txt": "-r base.txt\nasyncpg==0.30.0\n", "requirements/base.txt": "alembic==1.16.5\n"}
    backend = make_backend(tmp_path / "shop", **more)
    read = read_requirements(backend, file="requirements/prod.txt")
    assert read.lines == ("alembic==1.16.5", "asyncpg==0.30.0")
    with pytest.raises(PackageError, match=r"^no file gone\.txt in "):
        read_requirements(backend, file="gone.txt")


def test_a_requirements_file_of_another_name_is_found_or_named(tmp_path: Path) -> None:
    files = {
        "requirements/base.txt": "sqlalchemy>=2\n",
        "requirements/dev.txt": "-r base.txt\n",
        "test-requirements.txt": "",
    }
    backend = make_backend(tmp_path / "shop", **files)
    (backend / "requirements.txt").unlink()
    assert lock_discovery.find(backend) == backend / "requirements/base.txt"
    write(backend, **{"requirements/typing.txt": "sqlalchemy>=2\n", "requirements/worker.txt": "celery\n"})
    assert lock_discovery.find(backend) == backend / "requirements/base.txt"
    write(backend, **{"requirements/production.txt": "-r base.txt\nasyncpg\n"})
    with pytest.raises(
        PackageError, match=r"but requirements/production\.txt, requirements/base\.txt; name one"
    ) as refused:
        lock_discovery.find(backend)
    assert "`requirements_file`: requirements/production.txt " in str(refused.value)


def test_a_lock_of_which_nothing_is_for_the_target_is_refused(tmp_path: Path) -> None:
    marker = 'python_version >= "3.11" and python_version < "3.12"'
    lines = f"alembic==1.16.5 ; {marker}\npydantic-settings==2.10.1 ; {marker}\n"
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": lines})
    with pytest.raises(PackageError) as refused:
        backend_pins(read_requirements(backend), Platform("3.13", "arm64"))
    assert str(refused.value).startswith("the markers in requirements.txt exclude alembic for ")
    assert "build for python3.11 (the stage's setting `runtime`)" in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# not from flask.current_app",
        "from flask import current_app\nwith make().app_context(): ...",
        '"""Not from flask.current_app."""',
        "from flask import current_app",
        "from flask import current_app\nmake().test_request_context().push()\ncurrent_app.config",
        "from flask import current_app\ntry:\n    current_app.config\nexcept Exception: ...",
        "from flask import current_app\nif bool(current_app): current_app.config",
        "from flask import current_app\nif current_app: current_app.config",
        "from flask import current_app, has_app_context\nif has_app_context(): ...",
        "try:\n    from flask import current_app\n    current_app.config\nexcept (ImportError, RuntimeError): ...",
    ],
)
def test_an_environment_without_need_of_an_application_is_no_flask(tmp_path: Path, line: str) -> None:
    backend = make_backend(tmp_path / "shop", **{"alembic/env.py": f"{ENV}{line}\n"})
    assert flask_app.find(read_layout(backend), {}) is None


@pytest.mark.parametrize(
    "source",
    [
        "from flask import current_app  # app_context\ncurrent_app.config",
        "from flask.globals import current_app as app\napp.config",
        "import flask as f\nf.current_app.config",
        "from flask import (  # a comment (in brackets)\n    current_app,\n)\ncurrent_app.config",
        FLASK + "try: ...\nexcept RuntimeError: ...",
        FLASK + "match ...: syntax of a newer Python",
    ],
)
def test_an_environment_in_need_of_an_application_is_seen(source: str) -> None:
    assert is_needed(source)


def test_a_twin_of_psycopg2_without_a_wheel_is_treated_like_every_other_driver_without_one(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": "alembic\nsqlalchemy\npsycopg2==2.9.9\n"})
    locked = replace(read_requirements(backend), locked=True, lines=("alembic==1.17.2", "psycopg2==2.9.9"))
    found = backend_pins(locked, Platform("3.13", "arm64"))
    assert [(pin.name, pin.version) for pin in found.aside] == [("psycopg2-binary", "2.9.9")]
    assert found.drivers == ("psycopg2",)


def test_an_sqlalchemy_that_python_cannot_import_is_refused_with_the_runtime_that_can(tmp_path: Path) -> None:
    lines = "alembic\nsqlalchemy==2.0.30\npsycopg2-binary\n"
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": lines})
    with pytest.raises(PackageError, match=r"sqlalchemy 2\.0\.30, which cannot be imported .*`runtime`: python3\.12"):
        backend_pins(read_requirements(backend), Platform("3.13", "arm64"))
    assert "sqlalchemy" in backend_pins(read_requirements(backend), Platform("3.12", "arm64")).names
    for newer in ("2.0.31", "2.0.*"):
        write(backend, **{"requirements.txt": lines.replace("2.0.30", newer)})
        assert "sqlalchemy" in backend_pins(read_requirements(backend), Platform("3.13", "arm64")).names


@pytest.mark.parametrize("line", ["psycopg2==2.9.10", "psycopg2 == 2.9.10 ; python_version > '3'"])
def test_psycopg2_is_taken_as_its_binary_twin(tmp_path: Path, line: str) -> None:
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": f"alembic\nsqlalchemy\n{line}\n"})
    found = backend_pins(read_requirements(backend), Platform("3.13", "arm64"))
    assert ("psycopg2-binary", "2.9.10") in {(pin.name, pin.version) for pin in found.pins}
    assert "psycopg2" not in found.names
    assert found.drivers == ("psycopg2",)
    [warning] = found.warnings
    assert "psycopg2-binary in its place" in warning


@pytest.mark.stress
@pytest.mark.parametrize(
    "location, place",
    [
        pytest.param("migrations", "db/migrations", id="the configuration's folder"),
        pytest.param("%(here)s/migrations", "db/migrations", id="here", marks=pytest.mark.stress),
        pytest.param("db/migrations", "db/migrations", id="the backend's folder", marks=pytest.mark.stress),
    ],
)
def test_a_location_is_meant_from_the_configurations_folder_too(
    runner: Runner, tmp_path: Path, location: str, place: str
) -> None:
    backend = write_tree(tmp_path / "shop", [Rev("a1", sql("CREATE TABLE a (id int)"))])
    (backend / "db").mkdir()
    (backend / "alembic").rename(backend / place)
    (backend / "db/alembic.ini").write_text(f"[alembic]\nscript_location = {location}\nprepend_sys_path = .\n")
    (backend / "requirements.txt").write_text("alembic\nsqlalchemy\n")

    built = build(backend, tmp_path / "out", Platform(), "db/alembic.ini")

    answer = runner.start_package(built.directory).invoke()
    assert (answer.error_type, answer.payload.get("revision")) == (None, "a1"), answer.payload


def test_a_path_of_a_container_is_named_as_such(tmp_path: Path) -> None:
    ini = "[alembic]\nscript_location = /srv/app/alembic\n"
    with pytest.raises(PackageError, match=r"is a path of a container, .* script_location = %\(here\)s/alembic"):
        build(make_backend(tmp_path / "shop", **{"alembic.ini": ini}), tmp_path / "out", Platform())


RANGES = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.10"
dependencies = ["alembic>=1.13", "sqlalchemy>=2.0"]
optional-dependencies = { postgres = ["asyncpg>=0.29"] }
"""


def test_without_a_lock_the_dependencies_of_the_project_are_resolved_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "shop", **{"pyproject.toml": RANGES, ".git/HEAD": ""})
    backend = make_backend(tmp_path / "shop" / "api")
    (backend / "requirements.txt").unlink()
    read = read_requirements(backend, extras=("postgres",))
    assert (read.lines, read.python) == (("alembic>=1.13", "sqlalchemy>=2.0", "asyncpg>=0.29"), ">=3.10")
    built = build(backend, tmp_path / "out", Platform(), selection=Selection(extras=("postgres",)))
    assert {"alembic", "asyncpg", "sqlalchemy"} <= {one.name.lower() for one in built.distributions}
    [warning] = [one for one in built.warnings if "pyproject.toml" in one]
    assert "3 of 3 requirements without an exact version" in warning
    assert warning.endswith("write a lock with: uv lock")


@pytest.mark.stress
def test_a_module_that_only_an_extra_has_is_named_with_the_extra(tmp_path: Path) -> None:
    extras = '{ postgres = ["asyncpg>=0.29"], all = ["shop[postgres]", "rich"], more = ["rich"] }'
    project = RANGES.replace('{ postgres = ["asyncpg>=0.29"] }', extras)
    files = {"pyproject.toml": project, ".git/HEAD": "", "app/models.py": "import asyncpg\n"}
    backend = make_backend(tmp_path / "shop", **files)
    (backend / "requirements.txt").unlink()
    with pytest.raises(PackageError) as refused:
        build(backend, tmp_path / "out", Platform())
    assert "asyncpg (app/models.py:1): the extra postgres of the backend's project" in str(refused.value)
    assert "EXTRAS=postgres" in str(refused.value)
    build(backend, tmp_path / "out", Platform(), selection=Selection(extras=("postgres",)))


@pytest.mark.parametrize(
    "text", [RANGES + '[tool.uv.sources]\nsqlalchemy = { git = "https://git.example/x" }\n', "[project]\nname = 's'\n"]
)
def test_a_project_that_only_its_own_tool_can_resolve_needs_a_lock(tmp_path: Path, text: str) -> None:
    backend = make_backend(tmp_path / "shop", **{"pyproject.toml": text, ".git/HEAD": ""})
    (backend / "requirements.txt").unlink()
    with pytest.raises(PackageError, match=r"^no lock and no requirements\.txt in .*write one with: uv lock$"):
        read_requirements(backend)


def test_an_extra_that_the_project_does_not_have_is_refused(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop", **{"pyproject.toml": RANGES, ".git/HEAD": ""})
    (backend / "requirements.txt").unlink()
    with pytest.raises(PackageError, match=r"^extras names gone, which pyproject\.toml does not have"):
        read_requirements(backend, extras=("gone",))


def test_a_source_of_uv_is_refused_only_with_the_extra_that_needs_it(tmp_path: Path) -> None:
    text = RANGES + "[tool.uv.sources]\nAsyncPG = { path = '../asyncpg' }\n"
    backend = make_backend(tmp_path / "shop", **{"pyproject.toml": text, ".git/HEAD": ""})
    (backend / "requirements.txt").unlink()
    assert read_requirements(backend).lines == ("alembic>=1.13", "sqlalchemy>=2.0")
    with pytest.raises(PackageError, match=r"^pyproject\.toml takes asyncpg from tool\.uv\.sources"):
        read_requirements(backend, extras=("postgres",))


@pytest.mark.stress
def test_make_review_gives_env_py_the_driver_in_the_backends_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": "alembic\nsqlalchemy\nasyncpg\n"})
    monkeypatch.setattr(demo_backend, "ROOT", tmp_path)  # where it builds the package
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["review", "--backend", str(backend)])
    passed: dict[str, str] = {}
    monkeypatch.setattr("os.execvpe", lambda _file, _arguments, environment: passed.update(environment))

    review.main()

    assert passed["DB_DRIVER"] == "postgresql+asyncpg"
