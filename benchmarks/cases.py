"""Names in results.json that `many_targets` writes and `scale` reads."""

from __future__ import annotations

MANY_TARGETS = "many_targets"
DATABASES = "databases"
PROCESSOR = "processor time"
SERVER = "the server's processor time"
