"""What a stage may say about the contents of its package."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """What is packaged of all that could be.

    ``dependency_group``: this group of the backend's ``uv.lock`` in place of its dependencies. ``traced``: only what
    the migrations import when they are run while building. ``aws_services``: services that botocore keeps the data of,
    beside those that the code names; None keeps all.
    """

    dependency_group: str | None = None
    traced: bool = False
    aws_services: tuple[str, ...] | None = ()
