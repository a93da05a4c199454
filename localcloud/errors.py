"""The one exception that the local cloud raises on purpose."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalCloudError(Exception):
    """Something a developer can act on; its text says what happened and what to do, and is shown as it is."""


@contextmanager
def readable(failure: str) -> Iterator[None]:
    """Turn the system's own errors, such as a full disk, into one that begins with what failed."""
    try:
        yield
    except OSError as error:
        raise LocalCloudError(f"{failure}: {error}") from error
