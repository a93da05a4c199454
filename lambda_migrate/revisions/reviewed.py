"""The reviewer's findings about the packaged revisions, from ``reviewed.json`` in the backend's tree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "reviewed.json"


def findings(tree: Path) -> Mapping[str, list[dict[str, Any]]]:
    """Return the findings of each reviewed revision. A revision that is missing was not reviewed.

    No finding stopped its revision. Each has ``rule``, ``severity``, ``message``, and ``reason`` if acknowledged.

    Raises:
        ConfigurationError: the file exists but cannot be read.
    """
    try:
        recorded = json.loads((tree / FILE).read_text(encoding="utf-8"))["revisions"]
        return {revision: list(entry["findings"]) for revision, entry in recorded.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{FILE} in the packaged tree is not what `migrate review --record` writes") from None
