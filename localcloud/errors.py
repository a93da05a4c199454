"""The exception that the local cloud raises."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalCloudError(Exception):
    """An error that a developer can fix. Its text has the problem and the fix, and is shown unchanged."""


@contextmanager
def readable(failure: str) -> Iterator[None]:
    """Turn an error of the operating system, such as a full disk, into one that begins with the failed task."""
    try:
        yield
    except OSError as error:
        raise LocalCloudError(f"{failure}: {error}") from error
