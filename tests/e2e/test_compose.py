"""compose.yaml and the backend's image: old and new Compose accept them, and they match docs/development.md."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]
from alembic.script import ScriptDirectory
from uv import find_uv_bin

from localcloud import account, ports
from tests.support.checkout import ROOT, copy_checkout
from tests.support.processes import killing
from tests.support.trees import Rev, sql, write_revision
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from localcloud.postgres import Database

COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "back" / "Dockerfile"
TOOLS = ROOT / "tests" / "support" / "compose"
SCHEMA = ROOT / "node_modules" / "dclint" / "schemas" / "compose.schema.json"
PAGE = ROOT / "docs" / "development.md"
SKILL = ROOT / ".claude" / "skills" / "create-db-migration" / "SKILL.md"

IN_THE_CONTAINER = "docker compose exec back "


@pytest.fixture(scope="module")
def tools(shared_run: Path) -> Path:
    """The commands of docker-compose 1.29 and hadolint, in an environment that is made once for all workers."""
    environment = shared_run / "compose-tools"
    with (shared_run / "compose-tools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not environment.exists():
            making = environment.with_suffix(".making")
            python = making / "bin" / "python"
            requirements = TOOLS / "tools.txt"
            subprocess.run([find_uv_bin(), "venv", "--quiet", "--relocatable", making], check=True)
            subprocess.run(
                [find_uv_bin(), "pip", "sync", "--quiet", "--require-hashes", "--python", python, requirements],
                check=True,
            )
            making.rename(environment)
    return environment / "bin"


def composed() -> Any:  # noqa: ANN401 - YAML
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def test_the_compose_file_is_valid_by_the_schema_of_the_compose_specification() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    file = composed()

    jsonschema.Draft7Validator(schema).validate(file)

    file["services"]["back"]["depend_on"] = []
    with pytest.raises(jsonschema.ValidationError, match="depend_on"):
        jsonschema.Draft7Validator(schema).validate(file)


@pytest.mark.stress
def test_docker_compose_1_29_takes_the_file_and_waits_for_a_healthy_database(tools: Path) -> None:
    environment = {"PATH": os.defpath, "PYTHONWARNINGS": "ignore", "UID": "1234", "BACK_PORT": "8000-8009"}

    done = subprocess.run(
        [tools / "docker-compose", "config"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    back = yaml.safe_load(done.stdout)["services"]["back"]
    assert back["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert (back["user"], back["ports"]) == ("1234:1000", ["127.0.0.1:8000-8009:8000/tcp"])


@pytest.mark.stress
def test_hadolint_finds_nothing_in_the_dockerfile(tools: Path) -> None:
    done = subprocess.run([tools / "hadolint", "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


# --- the Dockerfile's own lines, without Docker ---


@dataclass(frozen=True)
class Image:
    """Read a Dockerfile: its variables, its shell commands and the container's command."""

    environment: dict[str, str]
    run: list[str]
    command: list[str]


def image() -> Image:
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8")).splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    environment = [word for name, rest in instructions if name == "ENV" for word in shlex.split(rest)]
    [command] = [json.loads(rest) for name, rest in instructions if name == "CMD"]
    return Image(
        dict(word.split("=", 1) for word in environment),
        [rest for name, rest in instructions if name == "RUN"],
        command,
    )


class Container:
    """The image's files in a folder: /opt/venv and /back are `venv` and `back`."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.back = folder / "back"
        self.port = ports.choose(None)
        self._image = image()
        self._user = account.unprivileged()
        shutil.copytree(ROOT / "back", self.back, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        (folder / "bin").mkdir()
        shutil.copy(find_uv_bin(), folder / "bin")
        shutil.copy(database.ca, folder / "ca.crt")
        (folder / "ca.crt").chmod(0o644)
        venv = self._image.environment["UV_PROJECT_ENVIRONMENT"]
        variables = {name: value.replace(venv, f"{folder}/venv") for name, value in self._image.environment.items()}
        self._environment = {
            **variables,
            "PATH": variables["PATH"].replace("$PATH", f"{folder}/bin:{os.defpath}"),
            # What Docker gives to a user that the image does not know.
            "HOME": "/",
            "DATABASE_URL": dataclasses.replace(database, ca=folder / "ca.crt").url,
            "PORT": str(self.port),
        }

    def build(self, python: str) -> None:
        """Install the locked dependencies by the Dockerfile's own line; the tree becomes the developer's."""
        [sync] = [command for command in self._image.run if command.startswith("uv ")]
        # The settings of uv that lead to a package index are this machine's own, and what it has is not fetched again.
        machine = {
            name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_", "HOME"))
        }
        environment = {**self._environment, **machine, "UV_PYTHON": python}
        for name in ("UV_NO_CACHE", "UV_NO_SYNC"):
            del environment[name]
        subprocess.run(shlex.split(sync), cwd=self.back, env=environment, check=True)
        if self._user:
            for path in (self.back, *self.back.rglob("*")):
                os.chown(path, self._user.user, self._user.group)

    def start(self) -> AbstractContextManager[subprocess.Popen[str]]:
        return killing(
            subprocess.Popen(
                self._image.command,
                cwd=self.back,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                **(self._user.as_process() if self._user else {}),
            )
        )

    def exec(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shlex.split(command),
            cwd=self.back,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            **(self._user.as_process() if self._user else {}),
        )

    def health(self) -> int:
        """Return the status of GET /health, 0 if no server listens."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            try:
                connection.request("GET", "/health")
            except ConnectionRefusedError:
                return 0
            return connection.getresponse().status

    def files(self) -> set[str]:
        return {path.relative_to(self.back).as_posix() for path in self.back.rglob("*")}


@pytest.fixture
def container(database: Database) -> Iterator[Container]:
    # Not pytest's folder, which no other account may enter.
    with tempfile.TemporaryDirectory(prefix="container-") as folder:
        Path(folder).chmod(0o755)
        yield Container(Path(folder), database)


def usable_python() -> str:
    """Return an interpreter that an unprivileged account may run. A version manager's may be for root only."""
    user = account.unprivileged()
    for python in (sys._base_executable, "/usr/bin/python3"):  # type: ignore[attr-defined]  # noqa: SLF001 - no other name
        try:
            check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]
            if subprocess.run(check, cwd="/", check=False, **(user.as_process() if user else {})).returncode == 0:
                return str(python)
        except OSError:
            continue
    pytest.skip("as root: no Python of 3.10 or later that another account may run")


def shown(page: Path) -> list[str]:
    """The commands that a page runs in the container, in its order."""
    blocks = "".join(re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
    lines = [line.partition("  #")[0].strip() for line in blocks.splitlines()]
    return [line.removeprefix(IN_THE_CONTAINER) for line in lines if line.startswith(IN_THE_CONTAINER)]


def test_these_commands_are_shown() -> None:
    assert [shlex.split(command)[:4] for command in shown(PAGE)] == [
        ["uv", "run", "alembic", "revision"],
        ["uv", "run", "alembic", "upgrade"],
        ["uv", "run", "alembic", "current"],
    ]
    assert set(shown(PAGE)) < set(shown(SKILL))


def test_the_workflow_by_the_dockerfiles_own_lines_as_an_account_without_rights(container: Container) -> None:
    revision, *others = shown(SKILL)
    container.build(usable_python())
    before = container.files()
    with container.start() as server:
        wait_for(container, server, 200)
        add_a_model(container.back)

        done = container.exec(revision)

        assert done.returncode == 0, done.stderr
        new = container.files() - before - {"app/models/teams.py"}
        # Nothing but the revision: no environment, no bytecode, no cache in the developer's tree.
        assert [name.rpartition("-")[2].partition("_")[2] for name in new] == ["add_teams_table.py"]
        assert container.health() == 503
        # What is locked may change in the tree: the image is what runs until it is built again.
        project = container.back / "pyproject.toml"
        project.write_text(project.read_text().replace('"alembic",', '"alembic",\n    "starlette",'))
        for command in others:
            done = container.exec(command)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert done.stdout.strip().endswith("(head)")
        assert container.health() == 200
        server.terminate()
        server.communicate()
    assert server.returncode == 0
    assert (container.back / "uv.lock").read_bytes() == (ROOT / "back" / "uv.lock").read_bytes()


@pytest.mark.stress
def test_an_account_that_may_not_write_gets_one_line_with_the_cure(container: Container) -> None:
    container.build(usable_python())
    versions = container.back / "alembic" / "versions"
    versions.chmod(0o555)
    before = container.files()

    done = container.exec(shown(SKILL)[0])

    owner = versions.stat()
    assert done.returncode != 0
    assert done.stdout.strip() == (
        f"FAILED: user {owner.st_uid} cannot write into {versions}; put UID={owner.st_uid} and GID={owner.st_gid},"
        " its owner, into .env, then: docker compose up -d"
    )
    assert container.files() == before


@pytest.mark.stress
def test_a_tree_that_the_account_may_not_read_is_one_line_with_the_cure(container: Container) -> None:
    container.build(usable_python())
    entry = container.back / "app" / "__main__.py"
    entry.chmod(0)
    owner = container.back.stat()

    with container.start() as server:
        out, _ = server.communicate()

    assert server.returncode == 1
    assert out == (
        f"FAILED: user {owner.st_uid} cannot read {container.back}; put UID={owner.st_uid} and GID={owner.st_gid},"
        " its owner, into .env, then: docker compose up -d\n"
    )


def wait_for(container: Container, server: subprocess.Popen[str], status: int) -> None:
    while container.health() != status:
        assert server.poll() is None, server.stdout and server.stdout.read()
        time.sleep(0.1)


def add_a_model(back: Path) -> None:
    script = (TOOLS / "workflow.sh").read_text(encoding="utf-8")
    [model] = re.findall(r"<<'MODEL'\n(.*?)^MODEL$", script, re.DOTALL | re.MULTILINE)
    (back / "app" / "models" / "teams.py").write_text(model)
    with (back / "app" / "models" / "__init__.py").open("a") as models:
        models.write("from app.models.teams import Team\n")


# --- with Docker ---


def docker_is_missing(compose: str) -> str | None:
    """Return which of the Docker engine, this command and the base images is missing."""
    images = [composed()["services"]["db"]["image"], *re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)]
    for command in ("docker info", f"{compose} version", *(f"docker image inspect {name}" for name in images)):
        try:
            if subprocess.run(command.split(), capture_output=True, check=False).returncode:
                return f"`{command}` fails here"
        except OSError:
            return f"there is no {command.split()[0]} here"
    return None


@pytest.mark.timeout(900)
@pytest.mark.parametrize("compose", ["docker compose", "docker-compose"])
def test_the_workflow_with_docker(tmp_path: Path, compose: str) -> None:
    if reason := docker_is_missing(compose):
        pytest.skip(reason)
    checkout = copy_checkout(tmp_path / "compose")
    project = f"test-{os.getpid()}"
    environment = {**os.environ, "COMPOSE_PROJECT_NAME": project, "BACK_PORT": str(ports.choose(None))}

    done = subprocess.run(
        ["sh", TOOLS / "workflow.sh", *compose.split()],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "All five steps work."


class Project:
    """Run the Compose plugin on a checkout's services, under a project name of their own."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.port = ports.choose(None)
        self._variables = {
            "COMPOSE_PROJECT_NAME": f"test-{os.getpid()}-{self.port}",
            "BACK_PORT": str(self.port),
            "UID": str(os.getuid()),
            "GID": str(os.getgid()),
        }

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["docker", "compose", *arguments],
            cwd=self.checkout,
            env={**os.environ, **self._variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *arguments: str, code: int = 0, **variables: str) -> str:
        out, _ = (process := self.start(*arguments, **variables)).communicate()
        assert process.returncode == code, out
        return out

    def alembic(self, *arguments: str) -> str:
        return self("exec", "-T", "back", "uv", "run", "alembic", *arguments)

    def query(self, statement: str) -> str:
        return self("exec", "-T", "db", "psql", "-U", "back", "-tAc", statement).strip()

    def state(self, what: str) -> str:
        container = self("ps", "-q", "--all", "back").strip()
        return subprocess.check_output(["docker", "inspect", "--format", what, container], text=True).strip()

    def end(self) -> str:
        """Wait for the end of the server's container, and return what it printed last."""
        eventually(lambda: self.state("{{.State.Status}}") == "exited")
        container = self("ps", "-q", "--all", "back").strip()
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        return done.stderr.splitlines()[-1]

    def add(self, statement: str) -> None:
        """Add a revision at the head."""
        tree = self.checkout / "back" / "alembic"
        head = ScriptDirectory(str(tree)).get_current_head() or ""
        revision = Rev(f"5e21{len(head):04}{len(list(tree.glob('versions/*'))):04}", upgrade=sql(statement))
        write_revision(tree / "versions", revision, head)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    if reason := docker_is_missing("docker compose"):
        pytest.skip(reason)
    project = Project(copy_checkout(tmp_path / "compose"))
    try:
        yield project
    finally:
        project("down", "--volumes", "--rmi", "local", "--timeout", "1")


@pytest.mark.timeout(1800)
def test_docker_a_start_and_the_alembic_command_at_once_both_end_at_head(
    project: Project, rounds: Callable[[int, int], int]
) -> None:
    project("build")
    for _ in range(rounds(1, 20)):
        project("up", "-d")
        project.alembic("upgrade", "head")
        project("down", "--volumes")

        project("up", "-d", "db")
        command = project.start("run", "--rm", "-T", "back", "uv", "run", "alembic", "upgrade", "head")
        project("up", "-d")
        out, _ = command.communicate()
        assert command.returncode == 0, out
        assert "(head)" in project.alembic("current")
        eventually(lambda: project.state("{{.State.Health.Status}}") == "healthy")
        project("down", "--volumes", "--timeout", "1")


@pytest.mark.timeout(900)
def test_docker_a_long_migration_is_not_unhealthy_and_stopping_it_is_logged_and_ends_its_statement(
    project: Project,
) -> None:
    project("up", "-d", "--build")
    eventually(lambda: project.state("{{.State.Health.Status}}") == "healthy")
    project.add("SELECT pg_sleep(600)")
    running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"

    # The alembic command: the engine kills it with its container.
    command = project.start("exec", "-T", "back", "uv", "run", "alembic", "upgrade", "head")
    eventually(lambda: project.query(running) == "1")
    project("stop", "back")
    command.communicate()
    assert command.returncode != 0
    eventually(lambda: project.query(running) == "0", within_s=10)

    # The server.
    project("up", "-d")
    eventually(lambda: project.query(running) == "1")
    time.sleep(50)  # longer than three health checks after the 30 s that were the start period
    assert project.state("{{.State.Health.Status}}") == "starting"
    project("stop", "back")

    assert project.state("{{.State.ExitCode}}") == "143"
    assert project.end().startswith("STOPPED by SIGTERM, in the middle of a migration: its statement was cancelled;")
    assert project.query(running) == "0"


def test_docker_a_wrong_uid_is_one_line_with_the_cure(project: Project) -> None:
    subprocess.run(["chmod", "-R", "go=", project.checkout / "back"], check=True)

    project("up", "-d", "--build", UID="4242", GID="4242")

    owner = f"UID={os.getuid()} and GID={os.getgid()}"
    assert project.end() == (
        f"FAILED: user 4242 cannot read /back; put {owner}, its owner, into .env, then: docker compose up -d"
    )


def test_docker_a_checkout_under_umask_077_makes_an_image_that_works(project: Project) -> None:
    subprocess.run(["chmod", "-R", "go=", project.checkout / "back"], check=True)
    image = f"test-umask-{os.getpid()}"
    subprocess.run(["docker", "build", "-q", "-t", image, project.checkout / "back"], check=True, capture_output=True)
    try:
        done = subprocess.run(["docker", "run", "--rm", image], capture_output=True, text=True, check=False)
        history = subprocess.run(
            ["docker", "run", "--rm", "-e", "DATABASE_URL=postgresql://", image, "uv", "run", "alembic", "heads"],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=False)

    # It has come to the program's own first check.
    assert done.stderr == "FAILED: DATABASE_URL is not set; it names the database to migrate and to use\n"
    assert "(head)" in history.stdout, history.stderr
