"""Start each test as a new execution environment starts: without a cached secret."""

from __future__ import annotations

import pytest

from lambda_migrate.invocation import redaction


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    # A generated password, such as "null", would be redacted from the messages of later tests.
    monkeypatch.setattr(redaction, "_secrets", ())
