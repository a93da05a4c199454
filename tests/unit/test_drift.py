"""Comparing a schema takes time in proportion to its objects."""

from __future__ import annotations

import time

from lambda_migrate.database.schema import Schema
from lambda_migrate.run import drift


def test_thousands_of_partitions_are_left_out_in_short_time() -> None:
    partitions = [f'app."p {number}"' for number in range(10_000)]
    kinds = ("table {}", "column {}.id", 'column {}."a.b"', "index i on {}", 'constraint "on x" on {}')
    found = {kind.format(name): "" for name in (*partitions, "app.days", "days") for kind in kinds}
    began = time.process_time()

    known = drift.known_to({"schema app": "", f"table {partitions[0]}": ""}, Schema(found, frozenset(partitions)))

    assert known.keys() == {kind.format(name) for name in (partitions[0], "app.days", "days") for kind in kinds}
    assert time.process_time() - began < 0.5, "longer if each name is compared with each partition"
