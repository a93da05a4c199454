"""Fixtures: the templates of the stages that a module of tests lists in ``STAGES``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.infra.synthesis import synthesize

if TYPE_CHECKING:
    from tests.infra.synthesis import Stack


@pytest.fixture(scope="module")
def stacks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stack]:
    """All stages of the module, synthesized together."""
    return synthesize(tmp_path_factory.mktemp("synthesis"), request.module.STAGES)


@pytest.fixture(scope="module")
def dev(stacks: dict[str, Stack]) -> Stack:
    """The module's stage ``dev``."""
    return stacks["dev"]
