"""A rollout on this machine, end to end: thirty tenants with a database each, and the state machine.

Run as ``python -m demo.rollout`` (`make rollout`). The names of the tenants' secrets have stage local's prefix from
cdk.json. An operator would run `migrate rollout --stage local`, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import webbrowser
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.text import Text

from demo.backend import ROOT
from demo.migrate import CA_BUNDLE, SECRET, STAGE, DemoError, deploy, step, store_secret
from localcloud import cloud, postgres
from localcloud.errors import LocalCloudError

TENANTS = 30
PAGE = ROOT / ".local" / "rollout.html"
_AT_ONCE = 4


def main() -> int:
    """Run the steps in order.

    Returns:
        The exit code of `migrate rollout`, or 1 if the preparation failed.
    """
    results, progress = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        with step(progress, "Starting PostgreSQL and AWS on this machine"):
            running = cloud.up(ROOT)
            CA_BUNDLE.write_bytes(running.database.ca.read_bytes())
        with step(progress, f"Making {TENANTS} tenants, each with a database and a secret"):
            store_secret(running, SECRET, running.database)
            make_tenants(running)
        with step(progress, "Deploying the function and its state machine with the CDK"):
            environment = running.emulator.environment(os.environ)
            deploy(running, environment)
    except (LocalCloudError, DemoError) as error:
        progress.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return 1
    PAGE.unlink(missing_ok=True)
    arguments = ["rollout", "--stage", STAGE]
    progress.print(f"[dim]migrate {' '.join(arguments)} ...[/]")
    command = [sys.executable, "-m", "migrate_cli", *arguments, "--report", str(PAGE)]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if PAGE.exists():
        results.print(f"The report: {PAGE}", soft_wrap=True)
        if _is_in_front_of_a_screen():
            webbrowser.open(PAGE.as_uri())
    return code


def prefix() -> str:
    """Return the prefix of the tenants' secrets in cdk.json."""
    project = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]["project"]
    return str(project["stages"][STAGE]["rollout"]["secret_prefix"])


def make_tenants(running: cloud.Cloud) -> None:
    """Create a database and a secret for each of the thirty tenants, if they are missing."""
    own, beginning = running.database, prefix()
    names = [f"tenant_{number:02}" for number in range(1, TENANTS + 1)]

    def make(name: str) -> None:
        postgres.create_database(running.server, name, own.user)
        store_secret(running, f"{beginning}{name}", running.server.database(name, own.user, own.password))

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as makers:
        list(makers.map(make, names))
    # One after the other, because roles belong to the server.
    for name in names:
        postgres.lay_out_roles(running.server, name, cloud.ROLES)


def _is_in_front_of_a_screen() -> bool:
    """Return whether a person runs this in a terminal of a machine with a screen."""
    has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and "CI" not in os.environ and has_screen


if __name__ == "__main__":
    sys.exit(main())
