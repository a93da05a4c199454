"""Builds the function's package: the directory that becomes ``/var/task``.

It holds our own code, the dependencies, and below ``backend/`` what a backend needs to run its Alembic migrations.
"""

from infra.package.builder import IMAGE, Package, build
from infra.package.distributions import Distribution
from infra.package.errors import PackageError
from infra.package.graph import Graph, GraphRevision
from infra.package.package_platform import Platform
from infra.package.selection import Selection

__all__ = [
    "IMAGE",
    "Distribution",
    "Graph",
    "GraphRevision",
    "Package",
    "PackageError",
    "Platform",
    "Selection",
    "build",
]
