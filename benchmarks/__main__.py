"""``python -m benchmarks`` measures every question. `make bench` runs it."""

from __future__ import annotations

from benchmarks import (
    empty_database,
    many_targets,
    memory,
    new_database,
    nothing_to_do,
    one_pending,
    package_build,
    package_size,
    review,
    running_application,
)
from benchmarks.suite import main

QUESTIONS = (
    nothing_to_do,
    one_pending,
    empty_database,
    new_database,
    memory,
    package_size,
    package_build,
    running_application,
    many_targets,
    review,
)

if __name__ == "__main__":
    main(*(question.measure for question in QUESTIONS))
