"""A real browser without a window: npm's Chromium, driven by Playwright.

Playwright's own browser comes from another host than npm and PyPI.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from localcloud import locks
from tests.support.checkout import ROOT, with_tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

_PACKED = ROOT / "node_modules" / "@sparticuz" / "chromium" / "bin"
# Node has the one Brotli decoder that is here already.
_UNPACK = """
const [, source, target] = process.argv;
const { createReadStream, createWriteStream } = require("node:fs");
require("node:stream").pipeline(createReadStream(source), require("node:zlib").createBrotliDecompress(),
  createWriteStream(target), (error) => { if (error) throw error; });
"""
# The same letters on every machine, with its own for what these lack.
_FONTS = """<?xml version="1.0"?>
<fontconfig><dir>{}</dir><dir>/usr/share/fonts</dir><cachedir>{}</cachedir></fontconfig>
"""


def missing() -> str | None:
    """Return the reason why this machine has no browser, None if it has one."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "npm's @sparticuz/chromium is a browser for Linux on x86_64 only"
    return None


@contextmanager
def page() -> Iterator[Page]:
    """Return a tab of a browser that ends with the context."""
    folder = _unpacked()
    libraries = os.pathsep.join(filter(None, (os.environ.get("LD_LIBRARY_PATH"), str(folder / "lib"))))
    environment: dict[str, str | float | bool] = {
        **os.environ,
        "LD_LIBRARY_PATH": libraries,
        "FONTCONFIG_FILE": str(folder / "fonts.conf"),
    }
    with (
        sync_playwright() as playwright,
        # Without its sandbox, in which root and most containers cannot run it. It sees our own pages only.
        playwright.chromium.launch(
            executable_path=folder / "chromium", chromium_sandbox=False, args=["--no-zygote"], env=environment
        ) as browser,
    ):
        yield browser.new_page()


def show(tab: Page, file: Path, *, width: int = 1100, height: int = 900, dark: bool = False) -> None:
    """Load a file into a window of that size, in that color scheme."""
    tab.set_viewport_size({"width": width, "height": height})
    tab.emulate_media(color_scheme="dark" if dark else "light")
    tab.goto(file.as_uri())


def _unpacked() -> Path:
    """The folder with the browser in it; unpacked once for each version that is installed."""
    version = str(json.loads((_PACKED.parent / "package.json").read_text(encoding="utf-8"))["version"])
    browsers = ROOT / ".local" / "browser"
    folder = browsers / version
    with locks.exclusive(browsers / "lock"):
        if folder.exists():
            return folder
        shutil.rmtree(unfinished := browsers / "unfinished", ignore_errors=True)
        unfinished.mkdir()
        for name in ("chromium", "al2023.tar", "fonts.tar"):
            command = ["node", "-e", _UNPACK, str(_PACKED / f"{name}.br"), str(unfinished / name)]
            subprocess.run(command, env=with_tools(dict(os.environ)), check=True)
        for archive in unfinished.glob("*.tar"):
            with tarfile.open(archive) as content:
                _extract(content, unfinished)
            archive.unlink()
        (unfinished / "chromium").chmod(0o755)
        (unfinished / "fonts.conf").write_text(
            _FONTS.format(folder / "fonts", browsers / "fonts-cache"), encoding="utf-8"
        )
        unfinished.rename(folder)
        return folder


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract an archive, refusing paths and links that lead out of the folder.

    Python 3.14 does so by default, 3.12 and 3.13 warn without a filter, and 3.10.11 and 3.11.3 or older have none.
    """
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
    else:
        archive.extractall(folder)  # noqa: S202 - package-lock.json pins the archive by its hash
