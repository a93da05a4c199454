"""A real browser without a window: npm's Chromium, driven by its DevTools protocol over two pipes.

Playwright would download its own browser from another host than npm and PyPI, and bring a second Node for its driver.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import platform
import select
import shutil
import subprocess
import tarfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from localcloud import locks
from tests.support.checkout import ROOT, with_tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PACKED = ROOT / "node_modules" / "@sparticuz" / "chromium" / "bin"
_ANSWER_S = 60
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


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **parameters: Any) -> Any:  # noqa: ANN401 - as the protocol has them
        """One method of the protocol, for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, file: Path, *, width: int = 1100, height: int = 900, dark: bool = False) -> None:
        """Load a file into a window of that size, in that color scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        before = len(self._browser.events)
        self.call("Page.navigate", url=file.as_uri())
        self._browser.wait_for("Page.loadEventFired", before)

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - JSON
        """Evaluate an expression of JavaScript, and return its value or that of its promise."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def type(self, text: str) -> None:
        """Type into the element with the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press a key that is not a character."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        reply = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(reply["data"]))

    def problems(self) -> list[str]:
        """Exceptions in scripts, and requests that the browser refused."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self._browser.events if event["method"] in kinds]


class Browser:
    """The protocol: requests, answers and events are JSON that ends with a zero."""

    def __init__(self, to: int, back: int) -> None:
        self._to = to
        self._back = back
        self._number = 0
        self._received = b""
        self.events: list[dict[str, Any]] = []

    def page(self) -> Page:
        """A new tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable", session)
        return Page(self, session)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        """Send a command and wait for the answer."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps({**request, **({"sessionId": session} if session else {})}).encode() + b"\0")
        while "id" not in (reply := self._receive()) or reply["id"] != self._number:
            self.events.append(reply)
        assert "error" not in reply, (method, reply["error"])
        return reply["result"]

    def wait_for(self, method: str, after: int) -> None:
        """Wait for an event, after so many others."""
        while all(event["method"] != method for event in self.events[after:]):
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + _ANSWER_S
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._back], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"the browser has not answered for {_ANSWER_S} s"
            more = os.read(self._back, 1 << 20)
            assert more, "the browser is gone"
            self._received += more
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))


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


def _pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors differ from those that the browser expects."""
    ends = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return read, write


@contextmanager
def start(profile: Path) -> Iterator[Browser]:
    """A browser until the end of the context; it keeps what it keeps in that folder."""
    folder = _unpacked()
    (read, to), (back, write) = _pipe(), _pipe()
    options = (
        "--headless=shell",
        "--remote-debugging-pipe",
        "--no-sandbox",  # in which root and most containers cannot run it; it sees our own page only
        "--no-zygote",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    )
    # It expects requests at 3 and answers at 4; a plain sh knows no number of two digits.
    command = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", str(folder / "chromium"), *options]
    libraries = os.pathsep.join(filter(None, (os.environ.get("LD_LIBRARY_PATH"), str(folder / "lib"))))
    fonts = folder / "fonts.conf"
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(fonts), "HOME": str(profile)}
    process = subprocess.Popen(command, pass_fds=(read, write), env=environment, stderr=subprocess.DEVNULL)
    os.close(read)
    os.close(write)
    try:
        yield Browser(to, back)
    finally:
        os.close(to)
        os.close(back)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
