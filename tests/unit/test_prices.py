"""docs/cli.md names the prices that an estimate uses."""

from __future__ import annotations

import re

import pytest

from migrate_cli.rollout import estimate as prices
from tests.support.checkout import ROOT


def test_the_documented_prices_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    shown = {name: float(price) for name, price in re.findall(r"^\| ([A-Z][^|]+) \| ([\d.]+) \|$", page, re.MULTILINE)}

    assert shown == pytest.approx(
        {
            "Lambda, GB-second, arm64": prices.GB_SECOND["arm64"],
            "Lambda, GB-second, x86_64": prices.GB_SECOND["x86_64"],
            "Lambda, million invocations": prices.INVOCATION * 1_000_000,
            "Step Functions, thousand state transitions": prices.TRANSITION * 1_000,
            "S3, thousand PUT or LIST requests": prices.S3_PUT_OR_LIST * 1_000,
        }
    )
