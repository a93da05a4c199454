"""The variables that a stage of cdk.json gives its function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Variables whose values are JSON. A stage may write them as objects.
_OBJECTS = ("DATABASE_ENV", "ALEMBIC_X")


def as_texts(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a stage's `environment`, with the JSON text of those that are objects."""
    objects = {name: environment[name] for name in _OBJECTS if isinstance(environment.get(name), Mapping)}
    return {**environment, **{name: json.dumps(value) for name, value in objects.items()}}
