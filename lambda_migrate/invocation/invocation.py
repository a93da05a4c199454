"""One invocation: its request, its settings, its deadline and its name in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.request import Request
    from lambda_migrate.invocation.settings import Settings

# PostgreSQL's limit for application_name is NAMEDATALEN - 1.
_APPLICATION_NAME_BYTES = 63


@dataclass(frozen=True)
class Invocation:
    """A checked request with the settings of its target. ``name`` is the application_name of its sessions."""

    request: Request
    settings: Settings
    deadline: Deadline
    name: str

    @property
    def schema(self) -> str | None:
        """The schema that the request names, if any."""
        return self.request.target.schema


def application_name(function_name: str, request_id: str) -> str:
    """Return the end of the function's name, which has its stage, and the whole request id, for pg_stat_activity."""
    room = _APPLICATION_NAME_BYTES - len(request_id) - 1
    return f"{function_name[-room:].lstrip('-') if room > 0 else ''}/{request_id}"[-_APPLICATION_NAME_BYTES:]
