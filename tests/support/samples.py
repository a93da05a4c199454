"""What `make test` leaves to `make stress`: further cases of a behaviour of which it runs a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

Value = TypeVar("Value")


def sampled(values: Iterable[Value], sample: Container[Value]) -> list[object]:
    """Return the values as a test's parameters. All but the sample have the mark `stress`."""
    return [value if value in sample else pytest.param(value, marks=pytest.mark.stress) for value in values]


def sampled_by_name(values: Mapping[str, Value], sample: Container[str]) -> list[object]:
    """Return the values as a test's parameters with their names as ids. All but the sample have the mark `stress`."""
    return [
        pytest.param(value, id=name, marks=() if name in sample else pytest.mark.stress)
        for name, value in values.items()
    ]
