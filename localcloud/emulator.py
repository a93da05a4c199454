"""AWS on this machine: the MiniStack emulator, apart from the developer's own AWS settings.

It answers only requests with the key of its start (`localcloud.access`). Clients send the key as their access key id.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from localcloud import daemon, files, locks, ports
from localcloud.errors import LocalCloudError, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Not "localhost": clients would look for S3 buckets under names like bucket.localhost, which few systems resolve.
HOST = "127.0.0.1"
REGION = "us-east-1"

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0  # it writes its state to disk when it stops
_PORT_ATTEMPTS = 5
_HEALTH = "/_ministack/health"
_ACCESS = Path(__file__).with_name("access.py")


@dataclass(frozen=True)
class Emulator:
    """A running emulator; `endpoint` is its address for every service, `key` the access key id that it accepts."""

    endpoint: str
    region: str
    directory: Path
    key: str = field(repr=False, compare=False)

    def settings(self) -> dict[str, str]:
        """Return the variables with which the CDK, boto3 and the AWS CLI find the emulator.

        An AWS_PROFILE that is also set still takes effect. `environment` removes it.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment for a process that uses the emulator.

        It is `base` (by default this process's) without its AWS settings, profiles included, plus the emulator's
        settings. The addresses of this machine bypass a proxy.
        """
        kept = {name: value for name, value in (os.environ if base is None else base).items() if not _is_aws(name)}
        for name in ("NO_PROXY", "no_proxy"):
            kept[name] = ",".join(filter(None, [kept.get(name), "127.0.0.1", "localhost"]))
        return {**kept, **self.settings()}


@dataclass(frozen=True)
class _Record:
    port: int
    # The emulator's health page returns it. So a server on the port that returns it is ours.
    token: str
    # The emulator refuses every request without it.
    key: str = field(repr=False)


def start(root: Path, directory: Path) -> Emulator:
    """Start the emulator in `directory`, or return the one that runs there.

    Args:
        root: the checkout, for the emulator's and the function runtime's programs in it.
        directory: the emulator's folder, with its state.

    Raises:
        LocalCloudError: it could not be started. The text has the reason.

    """
    process = _process(directory)
    with readable(f"The AWS emulator could not be started in {directory}"), locks.exclusive(process.guard):
        record = _recall(directory)
        if record and daemon.is_running(process) and daemon.wait_until_ready(process, _probe(record), _START_SECONDS):
            return _emulator(directory, record)
        program = root / ".local" / "ministack" / "bin" / "python"
        if not program.exists():
            raise LocalCloudError(f"The AWS emulator is not installed ({program}); `make migrate` installs it.")
        return _launch(root, program, directory, record.port if record else None)


def stop(directory: Path) -> None:
    """Stop the emulator in `directory` and its functions, if it runs. Its state stays."""
    process = _process(directory)
    if process.directory.exists():
        with locks.exclusive(process.guard):
            daemon.stop(process, signal.SIGTERM, _STOP_SECONDS)


def remove(directory: Path) -> None:
    """Stop the emulator in `directory` and remove its state."""
    stop(directory)
    shutil.rmtree(directory, ignore_errors=True)


def is_running(directory: Path) -> bool:
    """Return whether the emulator in `directory` runs."""
    return daemon.is_running(_process(directory))


def running(directory: Path) -> Emulator | None:
    """Return the emulator in `directory`, or None if it does not run."""
    record = _recall(directory) if is_running(directory) else None
    return _emulator(directory, record) if record else None


def _launch(root: Path, program: Path, directory: Path, preferred: int | None) -> Emulator:
    process = _process(directory)
    # The emulator unpacks every version of a function's code there.
    shutil.rmtree(directory / "tmp", ignore_errors=True)
    for _ in range(_PORT_ATTEMPTS):
        record = _Record(ports.choose(preferred), secrets.token_hex(16), f"LOCAL{secrets.token_hex(20)}")
        files.write_private(directory / "emulator.json", json.dumps(asdict(record)))
        daemon.launch(process, [program, _ACCESS], _environment(root, directory, record), None)
        if daemon.wait_until_ready(process, _probe(record), _START_SECONDS):
            return _emulator(directory, record)
        if "already in use" not in process.log.read_text(errors="replace"):
            raise LocalCloudError(f"The AWS emulator ended while starting. {daemon.log_tail(process)}")
    raise LocalCloudError(f"The AWS emulator lost its port to another program {_PORT_ATTEMPTS} times; try again.")


def _environment(root: Path, directory: Path, record: _Record) -> dict[str, str]:
    """Return the emulator's environment. Its functions inherit all of it.

    The function runtime's `python3` comes first on the path, and nothing of the project's own environment is on it.
    """
    # Only the developer may read the emulator's log.
    directory.chmod(0o700)
    folders = {name: directory / name for name in ("home", "tmp", "state", "s3")}
    for folder in folders.values():
        folder.mkdir(mode=0o700, exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(root / ".local" / "runtime" / "bin"), "/usr/bin", "/bin"]),
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "LANG": "C.UTF-8",
        "AWS_ENDPOINT_URL": _endpoint(record.port),
        # The key that every request needs. The functions have it, too.
        "AWS_ACCESS_KEY_ID": record.key,
        "AWS_SECRET_ACCESS_KEY": "test",
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(record.port),
        "MINISTACK_EDITION": record.token,
        "MINISTACK_REGION": REGION,
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folders["state"]),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folders["s3"]),
        "LAMBDA_EXECUTOR": "local",
        # Servers on fixed ports: a second emulator on this machine would find them taken.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        # It would remove containers that other emulators on this machine made.
        "DOCKER_HOST": f"unix://{directory / 'no-docker.sock'}",
    }


def _process(directory: Path) -> daemon.Daemon:
    return daemon.Daemon("The AWS emulator", directory)


def _endpoint(port: int) -> str:
    return f"http://{HOST}:{port}"


def _emulator(directory: Path, record: _Record) -> Emulator:
    return Emulator(_endpoint(record.port), REGION, directory, record.key)


def _recall(directory: Path) -> _Record | None:
    try:
        return _Record(**json.loads((directory / "emulator.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError):  # the latter from a checkout that had no key yet
        return None


def _probe(record: _Record) -> Callable[[], str | None]:
    def obstacle() -> str | None:
        # http.client uses no proxy.
        connection = http.client.HTTPConnection(HOST, record.port, timeout=5)
        try:
            connection.request("GET", _HEALTH, headers={"Authorization": f"Credential={record.key}/"})
            health = json.loads(connection.getresponse().read())
            if health["edition"] != record.token:
                return f"another program answers on port {record.port}"
            if health["ready_scripts"]["status"] != "completed":
                return "it is still getting ready"
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            return f"it does not answer ({error})"
        finally:
            connection.close()
        return None

    return obstacle


def _is_aws(name: str) -> bool:
    return name.startswith("AWS_")
