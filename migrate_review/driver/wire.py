"""The driver's end of the two pipes to `process`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from lambda_migrate.database.common import STARTED

if TYPE_CHECKING:
    from collections.abc import Mapping

# Its answer is the server and the database, which must be the same for both ends.
IDENTITY = f"SELECT {STARTED} || ' ' || current_database()"


@dataclass
class Wire:
    """The two pipes: reads and writes one line of JSON at a time."""

    commands: TextIO
    answers: TextIO

    def read(self) -> dict[str, Any] | None:
        """Return the next command or answer; None if the other end has closed."""
        line = self.commands.readline()
        return json.loads(line) if line else None

    def write(self, message: Mapping[str, Any]) -> None:
        """Write an answer, or a question to the other end."""
        self.answers.write(json.dumps(message) + "\n")
        self.answers.flush()
