"""Keeps an answer below the size that Lambda accepts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Lambda refuses answers over 6 MB. The rest of the answer, and the escaping of JSON within JSON, need room too.
_LARGEST_LIST_BYTES = 5_000_000


def limited(name: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a list as a field of an answer, cut off where Lambda would refuse it, with a note if it was."""
    kept: list[Mapping[str, Any]] = []
    size = 0
    for entry in entries:
        size += len(json.dumps(entry))
        if size > _LARGEST_LIST_BYTES:
            return {name: kept, "truncated": f"{len(kept)} of {len(entries)} shown: Lambda answers with 6 MB at most"}
        kept.append(entry)
    return {name: kept}
