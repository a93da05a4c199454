"""Fixtures: a stub of AWS with a stage's state machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from migrate_cli.rollout import commands
from tests.support.rollout_stub import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rollout_stub import RolloutStub


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutStub]:
    monkeypatch.setattr(commands, "_POLL_S", 0.01)
    with serve() as stub:
        for name, value in stub.environment().items():
            monkeypatch.setitem(os.environ, name, value)
        yield stub
