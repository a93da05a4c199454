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

    - ``dependency_group``: the group of the backend's ``uv.lock`` that replaces its dependencies.
    - ``extras``: extras of the backend's project, in addition to its dependencies.
    - ``exclude``: distributions to leave out.
    - ``requirements``: the path of another lock or requirements file in the backend.
    - ``package_files``: patterns of the backend's files to package in addition to the tree and its imports.
    - ``traced``: package only the distributions that the tree imports in a run during the build.
    - ``environment``: the variables of the function, and of that run.
    - ``aws_services``: services whose data botocore keeps, in addition to those that the code names. None keeps all.
    - ``limited``: refuse a package over Lambda's limit for unpacked code. Container images do not have this limit.
    - ``unfinished``: the tree may have no revision yet, for a package that is not deployed.
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
