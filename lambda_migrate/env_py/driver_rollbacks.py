"""Notices a rollback() of a driver's own connection, of which SQLAlchemy has no event."""

from __future__ import annotations

import functools
import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable


def watch(note: Callable[[Any], None]) -> None:
    """Call ``note`` with the driver's connection before it rolls back, for each that SQLAlchemy opens from now on."""
    classes: set[type[Any]] = set()

    def wrap(driver: Any, _: object) -> None:  # noqa: ANN401 - each driver has its own connection
        kind = type(driver)
        if kind in classes:
            return
        classes.add(kind)
        original = kind.rollback

        def rollback(driver: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
            note(driver)
            return original(driver, *args, **options)

        with suppress(TypeError):  # a class written in C
            kind.rollback = rollback

    event.listen(sqlalchemy.engine.Engine, "do_connect", _use_class_in_python)
    event.listen(sqlalchemy.pool.Pool, "connect", wrap)


def _use_class_in_python(dialect: Any, _: object, __: object, options: dict[str, Any]) -> None:  # noqa: ANN401
    """Let psycopg2 make connections whose method can be replaced: its own class is written in C."""
    # An engine may have another module in its place, which need not know this argument.
    if getattr(dialect.dbapi, "__name__", "") == "psycopg2":
        options.setdefault("connection_factory", _psycopg2_class())


@functools.cache
def _psycopg2_class() -> type[Any]:
    return type("connection", (importlib.import_module("psycopg2.extensions").connection,), {})
