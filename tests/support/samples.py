"""What `make test` leaves to `make stress`: further cases of a behaviour of which it runs a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping

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


def in_two_sets(values: Mapping[str, Value], sample: Collection[str]) -> list[object]:
    """Return two sets of the values for a test that goes through one: the sample, and the others with `stress`."""
    assert set(sample) <= set(values)
    others = [value for name, value in values.items() if name not in sample]
    return [
        pytest.param([values[name] for name in sample], id="a sample"),
        pytest.param(others, id="the others", marks=pytest.mark.stress),
    ]


def chosen(values: Mapping[str, Value], sample: Container[str], config: pytest.Config) -> dict[str, Value]:
    """Return the values that this run tries: those of the sample, or all with `--stress`."""
    everything = config.getoption("stress")
    return {name: value for name, value in values.items() if everything or name in sample}
