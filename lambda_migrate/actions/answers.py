"""Keeps an answer in the form and below the size that Lambda accepts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Lambda refuses answers over 6 MB. The rest of the answer, and the escaping of JSON within JSON, need room too.
_LARGEST_LIST_BYTES = 5_000_000
_LARGEST_BYTES = 6_000_000


def limited(name: str, entries: Sequence[Mapping[str, Any]], largest: int = _LARGEST_LIST_BYTES) -> dict[str, Any]:
    """Return a list as a field of an answer. If the list is too long for Lambda, it is cut, with a note."""
    kept: list[Mapping[str, Any]] = []
    size = 0
    for entry in entries:
        size += len(json.dumps(entry))
        if size > largest:
            return {name: kept, "truncated": f"{len(kept)} of {len(entries)} shown: Lambda answers with 6 MB at most"}
        kept.append(entry)
    return {name: kept}


def sendable(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that Lambda can send: as it is, or with its longest lists cut off and a note.

    AWS's runtime client encodes the answer as UTF-8, which has no form for half of a surrogate pair. The description of
    a revision may contain one.
    """
    try:
        size = len(json.dumps(answer, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        answer = json.loads(json.dumps(answer, ensure_ascii=False).encode(errors="replace"))
        size = len(json.dumps(answer, ensure_ascii=False).encode())
    if size <= _LARGEST_BYTES:
        return answer
    lists = {name: value for name, value in answer.items() if isinstance(value, list)}
    for name in sorted(lists, key=lambda name: -len(json.dumps(lists[name]))):
        kept = limited(name, lists[name], _LARGEST_BYTES // (2 * len(lists)))
        note = {"truncated": f"{name}: {kept['truncated']}"} if "truncated" in kept else {}
        answer = {**answer, **kept, **note}
    return answer
