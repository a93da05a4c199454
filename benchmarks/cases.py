"""Names in results.json of the question `many_targets`, which writes them, and `scale`, which reads them."""

from __future__ import annotations

MANY_TARGETS = "many_targets"
DATABASES = "databases"
PROCESSOR = "processor time"
SERVER = "the server's processor time"
