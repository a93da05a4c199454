"""Makes distributions for a test, and an index of them on loopback. Building one needs no network."""

from __future__ import annotations

import base64
import io
import tarfile
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.http_stub import Handler, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A build backend of its own, so that no test downloads one. With `native`, it runs the compiler first.
_BACKEND = """
import os, subprocess, zipfile

FILES, METADATA, NATIVE = {files!r}, {metadata!r}, {native!r}
NAME, VERSION = {name!r}, {version!r}

def build_wheel(directory, config_settings=None, metadata_directory=None):
    if NATIVE:
        subprocess.run([os.environ.get("CC", "cc"), "--version"], check=True)
    wheel = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(os.path.join(directory, wheel), "w") as archive:
        for path, text in {{**FILES, f"{{NAME}}.variables": "\\n".join(os.environ)}}.items():
            archive.writestr(path, text)
        archive.writestr(f"{{info}}/METADATA", METADATA)
        archive.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{{info}}/RECORD", "".join(f"{{path}},,\\n" for path in archive.namelist()))
    return wheel
"""
_PYPROJECT = (
    '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "{name}"\n'
)


def metadata(name: str, version: str, requires: tuple[str, ...]) -> str:
    lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}"


def make_source(folder: Path, name: str, files: dict[str, str], *requires: str, native: bool = False) -> Path:
    """A folder that builds version 1.0 of a distribution; ``native``: only with a compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    text = metadata(name, "1.0", requires)
    (folder / "backend.py").write_text(
        _BACKEND.format(files=files, metadata=text, native=native, name=name.replace("-", "_"), version="1.0")
    )
    dependencies = "".join(f'"{one}", ' for one in requires)
    project = f'{_PYPROJECT.format(name=name)}version = "1.0"\ndependencies = [{dependencies}]\n'
    (folder / "pyproject.toml").write_text(project)
    (folder / "PKG-INFO").write_text(text)
    return folder


def make_sdist(index: Path, name: str, files: dict[str, str], *requires: str, native: bool = False) -> Path:
    """Version 1.0 of a distribution, as a source archive in an index."""
    source = make_source(index / "sources" / name, name, files, *requires, native=native)
    stem = f"{name.replace('-', '_')}-1.0"
    path = index / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file in source.iterdir():
            archive.add(file, f"{stem}/{file.name}")
    return path


def make_wheel(index: Path, name: str, files: dict[str, str], *requires: str, tag: str = "py3-none-any") -> Path:
    """Version 1.0 of a distribution, as a wheel in an index."""
    index.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-1.0"
    path = index / f"{stem}-{tag}.whl"
    info = f"{stem}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": metadata(name, "1.0", requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    content[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in (*content, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for one, text in content.items():
            archive.writestr(one, text)
    return path


@contextmanager
def serving(index: Path, login: str | None = None) -> Iterator[str]:
    """The address of an index that has the files of a folder; ``login`` is ``user:password``."""

    class Simple(Handler):
        def do_GET(self) -> None:  # noqa: N802
            wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None
            if wanted and self.headers.get("Authorization") != wanted:
                self.send(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
                return
            parts = self.path.strip("/").split("/")
            if parts[0] == "files" and (index / parts[1]).is_file():
                self.send(200, (index / parts[1]).read_bytes())
                return
            name = parts[-1].replace("-", "_")
            links = io.StringIO()
            for file in sorted(index.glob(f"{name}-*.*")):
                links.write(f'<a href="/files/{file.name}">{file.name}</a>\n')
            self.send(200 if links.getvalue() else 404, links.getvalue().encode(), {"Content-Type": "text/html"})

        do_HEAD = do_GET  # noqa: N815

    with serve(Simple) as address:
        yield f"{address}/simple"
