"""Lets env.py configure, log and print as it likes, without a line of it getting out except as a message."""

from __future__ import annotations

import contextlib
import io
import logging
import logging.config
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from lambda_migrate.messages import Message, Output
from lambda_migrate.telemetry import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How long to wait for what a program that a revision started may still have to say.
_LAST_WORDS_S = 1.0


def sent_one_by_one(send: Callable[[Message], None]) -> Callable[[Message], None]:
    """Make a sender that the backend's threads may use at once."""
    lock = threading.RLock()

    def one_by_one(message: Message) -> None:
        with lock:
            send(message)

    return one_by_one


class _LinesAsMessages(io.TextIOBase):
    """A text stream whose lines become messages: what is printed past our logger would be no JSON."""

    def __init__(self, send: Callable[[Message], None], source: str) -> None:
        self._send = send
        self._source = source
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                # When nobody listens any more, the backend's last words are not worth an error.
                with contextlib.suppress(OSError):
                    self._send(Output(logging.INFO, self._source, one_line(line)))
        return len(text)

    def flush(self) -> None:
        """Lines are sent when they are whole; the last one in `finish`."""

    def finish(self) -> None:
        """Send what stands on the last line."""
        if self._rest.strip():
            self.write("\n")


def _send_record(send: Callable[[Message], None], record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string in the backend must not end its migration
        text = f"{record.msg} {record.args}"
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    with contextlib.suppress(OSError):
        send(Output(record.levelno, record.name, one_line(text)))


def _take_over_logging(send: Callable[[Message], None]) -> None:
    """Send each record once, whatever handlers the backend sets up, replaces or cuts off from the root logger.

    Its handlers for the console would only say the same again, without the level; others get their records.
    """

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        _send_record(send, record)
        current: logging.Logger | None = logger
        while current is not None:
            for handler in current.handlers:
                if record.levelno >= handler.level and not _is_console(handler):
                    handler.handle(record)
            current = current.parent if current.propagate else None

    def no_configuration(*_: Any, **__: Any) -> None:  # noqa: ANN401
        """Stands in for the functions that would silence every logger the config file does not name."""

    logging.Logger.callHandlers = call_handlers  # type: ignore[assignment, method-assign]
    logging.config.fileConfig = no_configuration
    logging.config.dictConfig = no_configuration
    # What goes wrong in the backend's handlers is its own affair.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers = []
    root.setLevel(logging.INFO)
    # "Running upgrade a -> b" is told by revision.started already.
    logging.getLogger("alembic.runtime").setLevel(logging.WARNING)


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


def _read_lines(descriptor: int, send: Callable[[Message], None]) -> None:
    """Send what programs that the backend starts, or code that is not Python, write to the console."""
    lines = _LinesAsMessages(send, "console")
    with open(descriptor, encoding="utf-8", errors="replace", newline="\n") as console:
        for line in console:
            lines.write(line)
    lines.finish()


@contextlib.contextmanager
def output_as_messages(send: Callable[[Message], None]) -> Iterator[None]:
    """Turn everything the backend's code logs and prints into messages, for the rest of this process's life."""
    _take_over_logging(send)
    readable, writable = os.pipe()
    for standard in (1, 2):
        os.dup2(writable, standard)
    os.close(writable)
    console = threading.Thread(target=_read_lines, args=(readable, send), daemon=True)
    console.start()
    out, err = _LinesAsMessages(send, "stdout"), _LinesAsMessages(send, "stderr")
    # Not put back: what is still said as the process ends has nowhere to go.
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        out.finish()
        err.finish()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for standard in (1, 2):
            os.dup2(nowhere, standard)
        console.join(_LAST_WORDS_S)
