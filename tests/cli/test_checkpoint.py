"""`migrate checkpoint` before it starts anything; tests/integration/checkpoint/ tests its output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended


def test_a_folder_without_a_configuration_is_a_wrong_usage(migrate: Callable[..., Ended], tmp_path: Path) -> None:
    ended = migrate("checkpoint", "--backend", str(tmp_path), "--json")

    assert ended.code == 2
    error = json.loads(ended.out)["error"]
    assert error["type"] == "UsageError"
    assert error["message"].startswith(f"there is no alembic.ini in {tmp_path}")


def test_a_server_that_is_not_installed_is_a_wrong_usage(migrate: Callable[..., Ended]) -> None:
    assert migrate("checkpoint", "--postgres", "14").code == 2
