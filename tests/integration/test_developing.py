"""The reference backend's alembic command for developers: new revisions, and errors of wrong use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory

from tests.support.samples import sampled
from tests.support.trees import Rev, write_tree

if TYPE_CHECKING:
    from localcloud.postgres import Database

BACK = Path(__file__).parents[2] / "back"
PREVIOUS, HEAD = [each.revision for each in ScriptDirectory(str(BACK / "alembic")).walk_revisions()][1::-1]

PAGE = (BACK.parent / "docs" / "development.md").read_text(encoding="utf-8").partition("## When alembic refuses")[2]
DOCUMENTED = [
    words for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for words in re.findall(r"`(.*?)`", row)
]

# Nobody listens there, and a command that gets as far as to try says so.
NO_DATABASE = "postgresql+psycopg2://back:secret@127.0.0.1:1/back"

TEAM = """
from sqlalchemy.orm import Mapped

from app.models.base import Base, Identified


class Team(Identified, Base):
    __tablename__ = "teams"

    name: Mapped[str]
"""


# A revision that does not import: for each error, its text and the error's line.
BROKEN = {
    "SyntaxError: invalid syntax": ("def upgrade(:", 4),
    "NameError: name 'sa' is not defined": ("\nTABLE = sa.table('teams')", 5),
    "ModuleNotFoundError: No module named 'nowhere_to_be_found'": ("import nowhere_to_be_found", 4),
}


@dataclass(frozen=True)
class Ended:
    """A command that has run."""

    code: int
    out: str
    lines: list[str]
    """Return its messages on standard error, without Alembic's log lines."""

    @property
    def message(self) -> str:
        """The one line that it failed with."""
        assert self.code != 0
        [line] = self.lines
        assert line.startswith("FAILED: ")
        # docs/development.md says what to do about it.
        assert any(words in line for words in DOCUMENTED), line
        return line


class Back:
    """A copy of the reference backend, and a database's address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = NO_DATABASE
        self.versions = folder / "alembic" / "versions"
        self.before = set(self.versions.glob("*.py"))

    def alembic(self, *arguments: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self.folder,
            env={**os.environ, "DATABASE_URL": self.url, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        # Alembic says FAILED on standard output, and the same in its log.
        errors = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("FAILED")]
        errors += [line for line in done.stderr.splitlines() if not line.startswith(("INFO ", "ERROR [alembic."))]
        return Ended(done.returncode, done.stdout, errors)

    def written(self) -> list[Path]:
        """The revisions that are new."""
        return sorted(set(self.versions.glob("*.py")) - self.before)

    def add_a_model(self) -> None:
        (self.folder / "app" / "models" / "teams.py").write_text(TEAM)
        with (self.folder / "app" / "models" / "__init__.py").open("a") as models:
            models.write("\nfrom app.models.teams import Team\n")

    def add_a_revision(self, body: str, parent: str = HEAD) -> None:
        text = f'"""Broken"""\nrevision = "b40ce0000001"\ndown_revision = "{parent}"\n{body}\n'
        (self.versions / "broken.py").write_text(text)


@pytest.fixture
def back(tmp_path: Path) -> Back:
    return Back(shutil.copytree(BACK, tmp_path / "back", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def at_head(back: Back, database: Database) -> Back:
    back.url = database.url
    assert back.alembic("upgrade", "head").code == 0
    return back


def test_a_changed_model_becomes_a_revision_that_can_be_applied(at_head: Back) -> None:
    at_head.add_a_model()

    ended = at_head.alembic("revision", "--autogenerate", "-m", "Add teams table")

    assert ended.code == 0, ended.lines
    [file] = at_head.written()
    assert re.fullmatch(r"\d{4}_\d\d_\d\d_\d{4}-[0-9a-f]{12}_add_teams_table\.py", file.name)
    assert re.search(r"op\.create_table\(\s*.teams.", file.read_text())
    assert at_head.alembic("upgrade", "head").code == 0
    assert at_head.alembic("current").out.strip().endswith("(head)")
    assert at_head.alembic("check").code == 0


@pytest.mark.parametrize(
    "arguments",
    sampled([(), ("-m", "..."), ("-m", "Notifications"), ("-m", "test migration")], {("-m", "Notifications")}),
    ids=str,
)
def test_a_description_that_tells_nothing_is_refused_before_anything_is_done(
    back: Back, arguments: tuple[str, ...]
) -> None:
    ended = back.alembic("revision", "--autogenerate", *arguments)

    assert 'as in "Add notifications table"' in ended.message
    assert back.written() == []


@pytest.mark.stress
def test_unchanged_models_leave_no_empty_revision_behind(at_head: Back) -> None:
    ended = at_head.alembic("revision", "--autogenerate", "-m", "Add teams table")

    assert "nothing to write: models and database are alike" in ended.message
    assert at_head.written() == []


@pytest.mark.stress
def test_a_revision_written_by_hand_may_be_empty_and_still_needs_a_description(at_head: Back) -> None:
    assert "there is no description" in at_head.alembic("revision").message
    assert at_head.alembic("revision", "-m", "Backfill the teams of users").code == 0
    assert len(at_head.written()) == 1


def test_a_database_behind_the_code_is_not_compared_with_the_models(back: Back, database: Database) -> None:
    back.url = database.url

    ended = back.alembic("revision", "--autogenerate", "-m", "Add teams table")

    assert f"the database is at base (no revision is applied) and not at the code's head, {HEAD}" in ended.message
    assert "upgrade head" in ended.message
    assert back.written() == []


@pytest.mark.parametrize(
    "arguments",
    sampled(
        [("current",), ("upgrade", "head"), ("revision", "--autogenerate", "-m", "Add teams table")],
        {("upgrade", "head")},
    ),
    ids=str,
)
def test_the_error_of_a_database_that_does_not_run_is_one_line_without_its_password(
    back: Back, arguments: tuple[str, ...]
) -> None:
    message = back.alembic(*arguments).message

    assert "the database cannot be used: " in message
    assert "port 1 failed: Connection refused" in message
    assert "secret" not in message


@pytest.mark.stress
@pytest.mark.parametrize("error", BROKEN)
def test_the_error_of_a_revision_that_does_not_import_has_its_file_and_line(
    back: Back, database: Database, error: str
) -> None:
    body, line = BROKEN[error]
    back.url = database.url
    back.add_a_revision(body)

    for arguments in (("current",), ("revision", "--autogenerate", "-m", "Add teams table")):
        message = back.alembic(*arguments).message

        assert message.startswith(f"FAILED: alembic/versions/broken.py, line {line}: {error}")


@pytest.mark.stress
def test_a_second_head_and_a_revision_of_another_branch_raise_alembics_own_errors(
    back: Back, database: Database
) -> None:
    back.url = database.url
    back.add_a_revision("def upgrade():\n    pass", parent=PREVIOUS)

    assert "Multiple head" in back.alembic("upgrade", "head").message

    assert back.alembic("upgrade", "b40ce0000001").code == 0
    (back.versions / "broken.py").unlink()
    assert "Can't locate revision" in back.alembic("upgrade", "head").message


@pytest.mark.stress
def test_an_error_while_a_revision_runs_keeps_its_traceback(at_head: Back) -> None:
    at_head.add_a_revision("from alembic import op\ndef upgrade():\n    op.execute('DROP TABLE nowhere')")

    ended = at_head.alembic("upgrade", "head")

    assert ended.code != 0
    assert ended.lines[0] == "Traceback (most recent call last):"
    assert any('table "nowhere" does not exist' in line for line in ended.lines)


@pytest.mark.stress
def test_a_key_that_another_mapping_lacks_is_no_variable(tmp_path: Path) -> None:
    folder = write_tree(tmp_path, [Rev("a1", "pass")], env_py="{'BLUE': 1}['RED']\n")
    command = [sys.executable, str(BACK.parent / "demo" / "alembic_command.py"), "--config", "alembic.ini", "current"]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": NO_DATABASE}

    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1] == "KeyError: 'RED'"


@pytest.mark.stress
@pytest.mark.parametrize("example", [None, ".env.example", ".env"])
def test_a_variable_that_another_backend_lacks_is_one_line_with_where_to_write_it(
    tmp_path: Path, example: str | None
) -> None:
    folder = write_tree(tmp_path, [Rev("a1", "pass")], env_py="import os\nos.environ['SECRET_KEY']\n")
    if example:
        (folder / example).touch()
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": NO_DATABASE}
    command = [sys.executable, str(BACK.parent / "demo" / "alembic_command.py"), "--config", "alembic.ini", "current"]

    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    where = {None: "write a file that", ".env": "name a file that"}.get(example, "write a file like .env.example that")
    expected = f"error: the backend needs SECRET_KEY in its environment; {where} has them"
    [line] = done.stderr.splitlines()
    assert (done.returncode, line.startswith(expected)) == (1, True), line
    assert line.endswith(f"ENV={folder / '.env'}")
