"""The log lines of a run while it works, from CloudWatch.

Nobody knows the request id of an invocation before it has answered. The run that is followed is the first that began
with the same action after this one was asked for: in the worst case it is another's, which this one then waits for.
Only what the function answers is believed in the end.
"""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore import exceptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrate_cli.stages import Function

_CONNECT_S = 3
_READ_S = 5
_POLL_S = 1.0
_SLOWEST_POLL_S = 15.0
# Lines of different sandboxes arrive out of order.
_OVERLAP_MS = 30_000
_THROTTLED = frozenset({"Throttling", "ThrottlingException"})
_NOT_YET = "ResourceNotFoundException"


class UnreadableError(Exception):
    """The log cannot be read; the message says why. The run goes on all the same."""


class RunLog:
    """The lines of the next run of an action. Make it before the invocation: it takes AWS's own time from the answer.

    Raises:
        UnreadableError: nobody may read them, or they cannot be reached.
    """

    def __init__(self, function: Function, action: str) -> None:
        self._group = function.log_group
        self._action = action
        self._seen: set[str] = set()
        self._pause = _POLL_S
        self.request_id: str | None = None
        try:
            self._client = function.client("logs", connect_s=_CONNECT_S, read_s=_READ_S)
            now_ms = int(time.time() * 1000)
            response = self._ask(startTime=now_ms, limit=1)
        except exceptions.BotoCoreError as error:
            raise UnreadableError(str(error)) from None
        date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        self._start = int(parsedate_to_datetime(date).timestamp() * 1000) if date else now_ms
        self._newest = self._start
        self._next = time.monotonic() + self._pause

    def poll(self) -> list[Mapping[str, Any]]:
        """What is new of the run, oldest first. Asks no more often than AWS likes, and gives nothing in between.

        Raises:
            UnreadableError: it will not become readable.
        """
        if time.monotonic() < self._next:
            return []
        try:
            lines = self._new_lines()
        except exceptions.BotoCoreError:
            # The network; the invocation itself will tell if it stays away.
            self._slow_down()
            lines = []
        self._next = time.monotonic() + self._pause
        return [line for line in lines if self._is_ours(line)]

    def _new_lines(self) -> list[Mapping[str, Any]]:
        events: list[Mapping[str, Any]] = []
        options: dict[str, Any] = {"startTime": max(self._start, self._newest - _OVERLAP_MS)}
        while True:
            response = self._ask(**options)
            events += response.get("events", [])
            if not response.get("nextToken"):
                break
            options["nextToken"] = response["nextToken"]
        fresh = [event for event in events if _identity(event) not in self._seen]
        self._seen.update(map(_identity, fresh))
        self._newest = max([self._newest, *(event["timestamp"] for event in fresh)])
        return [line for event in sorted(fresh, key=lambda event: event["timestamp"]) if (line := _parsed(event))]

    def _ask(self, **options: Any) -> Mapping[str, Any]:  # noqa: ANN401 - as the API has them
        try:
            response: Mapping[str, Any] = self._client.filter_log_events(logGroupName=self._group, **options)
        except exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _THROTTLED:
                self._slow_down()
            elif code != _NOT_YET:  # a function that has never run has no log
                raise UnreadableError(str(error)) from None
            response = dict(error.response)
        return response

    def _slow_down(self) -> None:
        self._pause = min(2 * self._pause, _SLOWEST_POLL_S)

    def _is_ours(self, line: Mapping[str, Any]) -> bool:
        request_id = line.get("function_request_id")
        if self.request_id is None and line["event"] == "migration.started" and line.get("action") == self._action:
            self.request_id = request_id
        return self.request_id is not None and request_id == self.request_id


def _identity(event: Mapping[str, Any]) -> str:
    """What tells it apart. The emulator gives no id to what it writes itself: the beginning and end of invocations."""
    return str(event.get("eventId") or event["message"])


def _parsed(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A line of the function's own; metrics and what Lambda itself says are none."""
    try:
        line = json.loads(event["message"])
    except ValueError:
        return None
    return line if isinstance(line, dict) and "event" in line else None
