"""Keeps secrets out of whatever the function logs, raises or returns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

REDACTED = "***"

# Shorter secrets would blank out half of every line, and protect nobody.
_SHORTEST_SECRET = 3
# Any address with a login, also of a secret that we never knew of.
_LOGIN_IN_URL = re.compile(r"://[^\s/@:'\"]*:[^\s'\"]*@")

# A sandbox that serves a fleet learns thousands of secrets, and a line can only hold one that is in use.
_CONCEALED_AT_MOST = 100

# Each secret with the ways in which it may be written, the one concealed last at the end.
_concealed: dict[str, frozenset[str]] = {}


def conceal(secret: str) -> None:
    """Redact this text from now on, in each spelling that a library is known to give it."""
    if len(secret) < _SHORTEST_SECRET:
        return
    written = {
        secret,
        quote(secret, safe=""),
        quote(secret, safe="/"),
        quote(secret, safe=" +"),  # SQLAlchemy's own way
        quote_plus(secret),
        quote(secret, safe="").replace("%", "%%"),  # as a config file holds it
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        secret.replace("\\", "\\\\").replace("'", "\\'"),  # as libpq's connection strings hold it
    }
    _concealed.pop(secret, None)
    _concealed[secret] = frozenset(written | {json.dumps(text)[1:-1] for text in written})
    if len(_concealed) > _CONCEALED_AT_MOST:
        del _concealed[next(iter(_concealed))]
    _longest_first.cache_clear()


@lru_cache(maxsize=1)
def _longest_first() -> list[str]:
    return sorted({text for written in _concealed.values() for text in written}, key=len, reverse=True)


def redact(text: str) -> str:
    """Return the text without concealed secrets and without the login of any URL."""
    for secret in _longest_first():
        text = text.replace(secret, REDACTED)
    return _LOGIN_IN_URL.sub(f"://{REDACTED}@", text)


def one_line(error: BaseException | str, *, limit: int = 2000) -> str:
    """Return a message that may be logged: without secrets, on one line, at most ``limit`` characters."""
    # Redacted before white space is joined, because a secret may hold some, and after, because joining may form one.
    text = redact(" ".join(redact(str(error)).split()))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def may_hold_secret(text: str) -> bool:
    """Return whether a text holds a concealed secret, or an address that may hold a login."""
    return "://" in text or any(secret in text for secret in _longest_first())


def redacted(value: Any) -> Any:  # noqa: ANN401 - whatever a log line may hold
    """Return a value of JSON with each text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    return value
