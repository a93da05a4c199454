"""The log lines of a run, from CloudWatch.

The request id of an invocation is unknown until the function answers. Therefore the followed run is the first run with
the same action that starts after the invocation. In the worst case it is another caller's run, for which this run
waits.
"""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore import exceptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_cli.stages import Function

_CONNECT_S = 3
_READ_S = 5
# CloudWatch may search the lines of months.
_LONG_READ_S = 60
_A_DAY_S = 24 * 60 * 60
_POLL_S = 1.0
_SLOWEST_POLL_S = 15.0
# Lines of different execution environments arrive out of order.
_OVERLAP_MS = 30_000
# Each run logs exactly one of these events, as its last line.
_LAST = frozenset({"migration.finished", "migration.noop", "migration.ahead", "migration.failed"})
_THROTTLED = frozenset({"Throttling", "ThrottlingException"})
_NOT_YET = "ResourceNotFoundException"


class UnreadableError(Exception):
    """The log cannot be read. The message has the reason. The run continues."""


class RunLog:
    """The lines of the next run of an action. Create it before the invocation, so that it starts at AWS's own time.

    Raises:
        UnreadableError: the caller may not read them, or CloudWatch cannot be reached.
    """

    def __init__(self, function: Function, action: str) -> None:
        self._lines: dict[str | None, list[Mapping[str, Any]]] = {}
        self._group = function.log_group
        self._action = action
        self._seen: set[str] = set()
        self._pause = _POLL_S
        self.request_id: str | None = None
        try:
            self._client = function.client("logs", connect_s=_CONNECT_S, read_s=_READ_S)
            now_ms = int(time.time() * 1000)
            response = self._client.filter_log_events(logGroupName=self._group, startTime=now_ms, limit=1)
        except exceptions.BotoCoreError as error:
            raise UnreadableError(str(error)) from None
        except exceptions.ClientError as error:
            self._refused(error)
            response = error.response
        date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        self._start = int(parsedate_to_datetime(date).timestamp() * 1000) if date else now_ms
        self._newest = self._start
        self._next = time.monotonic() + self._pause

    @property
    def lines(self) -> list[Mapping[str, Any]]:
        """Return the run's lines that were found so far, oldest first."""
        return self._lines.get(self.request_id, [])

    @property
    def last(self) -> Mapping[str, Any] | None:
        """Return the line that ends the run, or None if it is not there yet."""
        return _last(self.lines)

    def read_failure(self, request_id: str, message: str, patience_s: float) -> None:
        """Follow the run that ended with this error, and wait for its last line. Lines take seconds to arrive.

        The run has the request's id, or a last line with the message: the emulator of the local cloud returns a request
        id that its functions do not know.

        Raises:
            UnreadableError: the lines cannot be read.
        """
        give_up = time.monotonic() + patience_s
        self._next = 0
        while True:
            self.poll()
            ended = {run: last for run, lines in self._lines.items() if (last := _last(lines))}
            same = [run for run, last in ended.items() if run == request_id or last.get("message") == message]
            left = give_up - time.monotonic()
            if same or left <= 0:
                break
            time.sleep(max(0, min(left, self._next - time.monotonic())))
        if same or request_id in self._lines:
            self.request_id = request_id if request_id in self._lines or not same else same[-1]

    def poll(self) -> list[Mapping[str, Any]]:
        """Return the new lines of the run, oldest first. It calls AWS at most once a second.

        Raises:
            UnreadableError: they cannot be read, now or later.
        """
        if time.monotonic() < self._next:
            return []
        try:
            lines = self._new_lines()
        except exceptions.BotoCoreError:
            # A network error. If it persists, the invocation itself fails.
            self._slow_down()
            lines = []
        self._next = time.monotonic() + self._pause
        return [line for line in lines if self._add(line)]

    def _new_lines(self) -> list[Mapping[str, Any]]:
        events: list[Mapping[str, Any]] = []
        pages = self._client.get_paginator("filter_log_events")
        try:
            events.extend(_events(pages, self._group, startTime=max(self._start, self._newest - _OVERLAP_MS)))
        except exceptions.ClientError as error:
            self._refused(error)
        fresh = [event for event in events if _identity(event) not in self._seen]
        self._seen.update(map(_identity, fresh))
        self._newest = max([self._newest, *(event["timestamp"] for event in fresh)])
        return [line for event in sorted(fresh, key=lambda event: event["timestamp"]) if (line := _parsed(event))]

    def _refused(self, error: exceptions.ClientError) -> None:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _THROTTLED:
            self._slow_down()
        elif code != _NOT_YET:  # a function that has never run has no log
            raise UnreadableError(str(error)) from None

    def _slow_down(self) -> None:
        self._pause = min(2 * self._pause, _SLOWEST_POLL_S)

    def _add(self, line: Mapping[str, Any]) -> bool:
        """Add a line to the lines of its run, and return whether this is the followed run."""
        request_id = line.get("function_request_id")
        self._lines.setdefault(request_id, []).append(line)
        if self.request_id is None and line["event"] == "migration.started" and line.get("action") == self._action:
            self.request_id = request_id
        return self.request_id is not None and request_id == self.request_id


def _last(lines: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((line for line in reversed(lines) if line["event"] in _LAST), None)


def messages(function: Function, request_id: str | None) -> Iterator[tuple[int, str]]:
    """Yield the time in milliseconds and the text of each log line of a request, by default of the last run.

    Raises:
        BotoCoreError: CloudWatch cannot be reached.
        ClientError: CloudWatch refuses the request.
    """
    pages = function.client("logs", connect_s=_CONNECT_S, read_s=_LONG_READ_S).get_paginator("filter_log_events")
    wanted = request_id or _last_request(pages, function.log_group)
    if wanted is None:
        return
    for event in _events(pages, function.log_group, filterPattern=f'"{wanted}"'):
        if wanted in event["message"]:
            yield event["timestamp"], event["message"].rstrip("\n")


def search(function: Function, event: str, *, days: int, patience_s: float) -> Iterator[Mapping[str, Any]]:
    """Yield the function's log lines with this event of the last ``days``, and end after ``patience_s``.

    CloudWatch returns a long log in many pages, some of them empty.

    Raises:
        UnreadableError: they cannot be read.
    """
    since, give_up = int((time.time() - days * _A_DAY_S) * 1000), time.monotonic() + patience_s
    try:
        pages = function.client("logs", connect_s=_CONNECT_S, read_s=_READ_S).get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=function.log_group, filterPattern=f'"{event}"', startTime=since):
            lines = map(_parsed, page["events"])
            yield from (line for line in lines if line is not None and line["event"] == event)
            if time.monotonic() > give_up:
                return
    except exceptions.ClientError as error:
        if error.response.get("Error", {}).get("Code") != _NOT_YET:
            raise UnreadableError(str(error)) from None
    except exceptions.BotoCoreError as error:
        raise UnreadableError(str(error)) from None


def _last_request(pages: Any, group: str) -> str | None:  # noqa: ANN401 - a paginator of botocore's
    """Return the request id of the run that started last, or None if none started within a day."""
    since = int((time.time() - _A_DAY_S) * 1000)
    starts = _events(pages, group, filterPattern='"migration.started"', startTime=since)
    lines = [line for event in sorted(starts, key=lambda event: event["timestamp"]) if (line := _parsed(event))]
    return next((line.get("function_request_id") for line in reversed(lines)), None)


def _events(pages: Any, group: str, **options: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401
    for page in pages.paginate(logGroupName=group, **options):
        yield from page["events"]


def _identity(event: Mapping[str, Any]) -> str:
    """Return a key for a line. The emulator gives no id to its own lines: the start and end of invocations."""
    return str(event.get("eventId") or event["message"])


def _parsed(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a line of the function itself, or None for metrics and for Lambda's own lines."""
    try:
        line = json.loads(event["message"])
    except ValueError:
        return None
    return line if isinstance(line, dict) and "event" in line else None
