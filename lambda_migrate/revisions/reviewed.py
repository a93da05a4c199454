"""What the reviewer found in the packaged revisions, as the backend's tree records it in ``reviewed.json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "reviewed.json"


def findings(tree: Path) -> Mapping[str, list[dict[str, Any]]]:
    """The findings of each revision that was reviewed, none of which stopped it; one that is missing was not.

    Each has ``rule``, ``severity``, ``message``, and ``reason`` where somebody acknowledged it.

    Raises:
        ConfigurationError: the file is there and cannot be read.
    """
    try:
        recorded = json.loads((tree / FILE).read_text(encoding="utf-8"))["revisions"]
        return {revision: list(entry["findings"]) for revision, entry in recorded.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{FILE} in the packaged tree is not what `migrate review --record` writes") from None
