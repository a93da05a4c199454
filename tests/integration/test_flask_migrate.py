"""A backend with Flask-Migrate is migrated, reviewed and developed inside its Flask application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from uv import find_uv_bin

from demo import backend as demo_backend
from demo import develop
from infra.package.builder import build
from infra.package.errors import PackageError
from infra.package.package_platform import Platform
from infra.package.selection import Selection
from tests.support.backends import lock, write
from tests.support.bystander import query
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

APP = """
import os
from flask import Flask
from flask_migrate import Migrate
from shop.models import db

migrate = Migrate()


@migrate.configure
def note(config):
    config.set_main_option("origin", "callback")
    return config


def create_app(tenant):
    app = Flask(__name__)
    app.config.update(SQLALCHEMY_DATABASE_URI=os.environ["SHOP_DATABASE_URI"], TENANT=tenant)
    db.init_app(app)
    migrate.init_app(app, db)
    return app
"""
MODELS = """
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


class Item(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(40), nullable=False)
"""
SEED = """

def upgrade():
    from alembic import context
    from flask import current_app
    op.create_table(
        "item", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(40), nullable=False))
    op.execute(sa.text("INSERT INTO item VALUES (1, :name)").bindparams(
        name=current_app.config["TENANT"] + " by " + context.config.get_main_option("origin")))
"""
SECOND = "\n\ndef upgrade():\n    op.add_column('item', sa.Column('price', sa.Integer))\n"
FLASK_APP = "shop:create_app('acme')"
SETTINGS: dict[str, Any] = {"FLASK_APP": FLASK_APP, "DATABASE_ENV": '{"SHOP_DATABASE_URI": "{url}"}'}


def flask(folder: Path, *arguments: str, **variables: str) -> None:
    """Run the flask command in the environment that the backend's own lock describes."""
    command = [find_uv_bin(), "run", "--quiet", "--frozen", "--python", sys.executable, "flask", *arguments]
    environment = {**os.environ, "FLASK_APP": FLASK_APP, **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def content(database: Database) -> list[object]:
    """All columns, constraints and rows of the database."""
    columns = """
        SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default,
            character_maximum_length
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
    """
    constraints = """
        SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace ORDER BY 1
    """
    questions = (columns, constraints, "SELECT * FROM item", "SELECT * FROM alembic_version")
    return [query(database, question) for question in questions]


def empty(database: Database) -> None:
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


@pytest.fixture
def shop(tmp_path: Path, database: Database) -> Path:
    """A project with the tree that `flask db init` makes."""
    folder = tmp_path / "shop"
    write(folder, **{"shop/__init__.py": APP, "shop/models.py": MODELS})
    lock(folder, "flask", "flask-migrate", "flask-sqlalchemy", "psycopg2-binary")
    address = {"SHOP_DATABASE_URI": database.url}
    flask(folder, "db", "init", **address)
    for revision, down, body in (("a1", None, SEED), ("b2", "a1", SECOND)):
        head = f'revision = "{revision}"\ndown_revision = {down!r}\nfrom alembic import op\nimport sqlalchemy as sa\n'
        write(folder, **{f"migrations/versions/{revision}.py": head + body})
    return folder


@pytest.mark.timeout(300)
def test_the_function_does_what_flask_db_upgrade_does(
    shop: Path, tmp_path: Path, database: Database, runner: Runner
) -> None:
    with pytest.raises(PackageError) as refused:
        build(shop, tmp_path / "out", Platform())
    assert str(refused.value).startswith("migrations/env.py reads flask.current_app")
    assert '"environment": {"FLASK_APP": "shop"}' in str(refused.value)

    flask(shop, "db", "upgrade", SHOP_DATABASE_URI=database.url)
    expected = content(database)
    assert expected[2:] == [[(1, "acme by callback", None)], [("b2",)]]
    empty(database)
    package = build(shop, tmp_path / "out", Platform(), selection=Selection(environment=SETTINGS)).directory
    assert json.loads((package / "manifest.json").read_text())["config"] == "backend/migrations/alembic.ini"
    function = runner.start_package(package, **SETTINGS)
    assert function.invoke({"action": "plan"}).error_type is None
    answer = function.invoke()
    assert answer.error_type is None, answer.payload
    assert [one["revision"] for one in answer.payload["applied"]] == ["a1", "b2"]
    assert content(database) == expected
    assert function.invoke().payload["up_to_date"]

    wrong = runner.start_package(package, **{**SETTINGS, "FLASK_APP": "shop:nothing"}).invoke({"action": "check"})
    assert wrong.error_type == "ConfigurationError"
    assert "Failed to find attribute 'nothing' in 'shop'" in wrong.payload["errorMessage"]


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_the_review_runs_the_revisions_inside_of_the_application(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "migrate_cli", "review", "--backend", str(shop), "--rows", "5", "--record"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    entries = json.loads((shop / "migrations" / "reviewed.json").read_text())["revisions"]
    assert [*entries["b2"]["measured"]["schema"]["changed"]] == ["column item.price"]

    monkeypatch.setenv("FLASK_APP", "shop:nothing")
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Flask cannot load it: Failed to find attribute 'nothing' in 'shop'" in refused.stderr


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_make_upgrade_and_make_revision_use_the_flask_command(
    shop: Path, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = tmp_path / "variables"
    variables.write_text(
        "".join(f'{name}="{value}"\n' if "'" in value else f"{name}='{value}'\n" for name, value in SETTINGS.items())
    )
    monkeypatch.setattr(demo_backend, "ROOT", tmp_path)  # where it builds the package
    monkeypatch.setattr("demo.develop.cloud.development", lambda *_: database)
    options = ["--backend", str(shop), "--env", str(variables)]

    assert develop.main([*options, "upgrade"]) == 0
    assert query(database, "SELECT * FROM item") == [(1, "acme by callback", None)]
    assert develop.main([*options, "revision", "-No price"]) == 0
    [written] = [file for file in (shop / "migrations" / "versions").glob("*.py") if file.stem not in {"a1", "b2"}]
    assert "drop_column('price')" in written.read_text()
