"""Finds the module of the Flask application in which an env.py of Flask-Migrate runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from infra.package.errors import PackageError
from lambda_migrate.env_py.flask_app import VARIABLE, needs_app, to_paste

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.package.layout import Layout

# Flask looks for these if FLASK_APP is not set.
_FLASKS_OWN = ("wsgi.py", "app.py")
_DOTENV = (".flaskenv", ".env")
_SETTING = re.compile(rf"^\s*(?:export\s+)?{VARIABLE}\s*=\s*[\"']?([^\"'\s#]+)", re.MULTILINE)
# The names that Flask searches in a module if FLASK_APP names no application, and patterns that create one.
_OBJECT_OR_FACTORY = r"^(?:app|application)\b[^=\n]*=[^=]|^def (?:create_app|make_app)\("
_FOUND = re.compile(_OBJECT_OR_FACTORY, re.MULTILINE)
_AS_IT_IS = re.compile(rf"{_OBJECT_OR_FACTORY}\s*\)", re.MULTILINE)
_MAKES_AN_APP = re.compile(r"\b(?:Migrate|Flask|create_app|make_app)\(")


def find(layout: Layout, environment: Mapping[str, str]) -> Path | None:
    """Return the module of the application that env.py needs, or None if env.py needs none.

    Raises `PackageError` if env.py needs one and ``environment`` does not name it.
    """
    if not (layout.tree.is_absolute() and needs_app(layout.tree / "env.py")):
        return None
    folder = layout.working_folder
    name = environment.get(VARIABLE)
    roots = [folder, *(root.source for root in layout.import_roots)]
    found = (
        next((file for root in roots if (file := _module(root, name))), None)
        if name
        else next((folder / own for own in _FLASKS_OWN if (folder / own).is_file()), None)
    )
    if found is not None and found.resolve().is_relative_to(layout.backend):
        return found
    if name:
        raise PackageError(f"{VARIABLE} in the stage's `environment` names {name}, which is no module below {folder}")
    guess = _guess(folder)
    where = Path(os.path.relpath(layout.tree, layout.backend)).as_posix()
    raise PackageError(
        f"{where}/env.py reads flask.current_app, so it runs only inside of the Flask application: name the application"
        f" in the stage, as for `flask db upgrade`: {to_paste(guess or 'module:name')}"
        f"{'' if guess else ', where module:name is the application or its factory'}"
    )


def _module(folder: Path, name: str) -> Path | None:
    """Return the file that Flask imports for a value of FLASK_APP."""
    path = re.split(r":(?![\\/])", name, maxsplit=1)[0]
    for base in (folder / path.removesuffix(".py"), folder / path.replace(".", "/")):
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


def _guess(folder: Path) -> str | None:
    """Return a value of FLASK_APP from the files for development, or a module that makes an application."""
    for name in _DOTENV:
        if (folder / name).is_file():
            named = _SETTING.search((folder / name).read_text(encoding="utf-8", errors="replace"))
            if named and _module(folder, named[1]):
                return named[1]
    modules = [*sorted(folder.glob("*.py")), *sorted(folder.glob("*/*.py"))]
    texts = {file: file.read_text(encoding="utf-8", errors="replace") for file in modules}
    found = [file for file, text in texts.items() if _FOUND.search(text) and _MAKES_AN_APP.search(text)]
    # A factory with arguments last, and one with Flask-Migrate's own object first.
    found.sort(key=lambda file: (not _AS_IT_IS.search(texts[file]), "Migrate(" not in texts[file]))
    return _name(found[0].relative_to(folder)) if found else None


def _name(file: Path) -> str:
    """Return a module in the format of FLASK_APP."""
    if len(file.parts) == 1:
        return file.name
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")
