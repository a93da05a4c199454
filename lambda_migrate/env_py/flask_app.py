"""Runs an env.py of Flask-Migrate inside its Flask application, as `flask db upgrade` does.

FLASK_APP names the application, as for Flask itself.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from alembic.config import Config

VARIABLE = "FLASK_APP"


def needs_app(env_py: Path) -> bool:
    """Return whether an env.py reads flask.current_app, and fails without an application context.

    It is False if there is no such file.
    """
    source = env_py.read_text(encoding="utf-8", errors="replace") if env_py.is_file() else ""
    if "current_app" not in source:
        return False
    from lambda_migrate.env_py import current_app  # noqa: PLC0415 - `ast`, which few backends need at each start

    return current_app.is_needed(source)


def to_paste(name: str) -> str:
    """Return the setting of a stage that names the application."""
    return f'"environment": {json.dumps({VARIABLE: name})}'


def set_script_location(config: Config, path: Path) -> None:
    """Set script_location to the folder of the configuration, as Flask-Migrate does, also if the file has another."""
    env_py = path.parent / "env.py"
    if env_py.is_file() and (not config.get_main_option("script_location") or needs_app(env_py)):
        config.set_main_option("script_location", str(path.parent).replace("%", "%%"))


@contextmanager
def in_app(env_py: Path, name: str | None) -> Iterator[Callable[[Config], Config]]:
    """Enter the context of the Flask application if env.py needs it, and provide what completes its configuration.

    ``name`` is the application in the format of FLASK_APP. Without it, Flask looks for wsgi.py and app.py in the
    current folder.

    Raises:
        ConfigurationError: the package has no Flask, or Flask finds no application.
    """
    if not needs_app(env_py):
        yield lambda config: config
        return
    app = _load(name)
    with app.app_context():
        migrate: Any = app.extensions.get("migrate")
        # An env.py of its own may need the application alone.
        yield (lambda config: config) if migrate is None else migrate.migrate.call_configure_callbacks


def _load(name: str | None) -> Any:  # noqa: ANN401 - flask.Flask, which only such backends have
    try:
        from click import UsageError  # noqa: PLC0415 - the backend's
        from flask.cli import ScriptInfo  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"env.py needs flask.current_app, and the package has no Flask: {error}") from None
    try:
        return ScriptInfo(name).load_app()
    except UsageError as error:
        raise ConfigurationError(
            f"env.py needs the Flask application, and Flask cannot load it: {one_line(error)}; name it in the stage's"
            f" `environment`: {to_paste('module:name')}"
        ) from None
