"""The log lines that are dropped."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.invocation.redaction import conceal, one_line, redact
from lambda_migrate.invocation.telemetry import _serialize

SECRET = "marker-1 @:/%'\"\\é"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").replace("%", "%%"),
        repr(SECRET),
        ascii(SECRET),
        json.dumps(SECRET),
    ],
)
def test_a_secret_is_redacted_however_it_is_written(written: str) -> None:
    conceal(SECRET)
    assert "marker-1" not in redact(f"could not connect with {written} to the server")


def test_the_login_of_any_url_is_redacted() -> None:
    assert redact("at postgresql://app:s3cr3t@db:5432/x") == "at postgresql://***@db:5432/x"


def test_a_url_without_a_login_stays() -> None:
    assert redact("see https://example.com/a:b") == "see https://example.com/a:b"


def test_a_log_line_holds_no_secret_at_any_depth() -> None:
    conceal(SECRET)
    line = _serialize({"message": SECRET, "facts": {"inner": [SECRET, 1, None]}})
    assert json.loads(line) == {"message": "***", "facts": {"inner": ["***", 1, None]}}


@given(st.text())
def test_a_message_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@pytest.mark.stress
def test_a_secret_in_use_stays_concealed_however_many_others_come() -> None:
    for number in range(1000):
        conceal(SECRET)
        conceal(f"another-secret-{number}")

    assert SECRET not in redact(f"password {SECRET} of another-secret-999")
    assert "another-secret-999" not in redact("another-secret-999")
