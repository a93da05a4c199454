"""The settings of a stage about the contents of its package."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Selection:
    """The selected contents of a package.

    ``requirements``: the path of another lock or requirements file in the backend. ``package_files``: patterns of files
    of the backend that are packaged beside the tree and what it imports. ``dependency_group``: this group of the
    backend's ``uv.lock`` in place of its dependencies. ``extras``: extras of the backend's
    project that are added to them. ``exclude``: distributions that are left out. ``traced``: only what the migrations
    import when they are run while building. ``environment``: the variables that the function will have, and that run.
    ``aws_services``: services that botocore keeps the data of, beside those that the code names; None keeps all.
    ``unfinished``: the tree may have no revision yet, for a package that is not deployed.
    ``limited``: refuse what is over Lambda's limit for unpacked code, which container images do not have.
    """

    dependency_group: str | None = None
    extras: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    requirements: str | None = None
    package_files: tuple[str, ...] = ()
    traced: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    aws_services: tuple[str, ...] | None = ()
    limited: bool = True
    unfinished: bool = False
