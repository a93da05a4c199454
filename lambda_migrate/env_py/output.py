"""Turns every line that env.py logs or prints into a message, however env.py configures logging."""

from __future__ import annotations

import contextlib
import io
import logging
import logging.config
import os
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from lambda_migrate.env_py.messages import Message, Output
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

_Sent = TypeVar("_Sent")
# A line may lack its end for ever, as a progress bar does. So much of it is one line.
_LONGEST_LINE = 65_536
# The time limit for the last output of a program that a revision started.
_LAST_OUTPUT_S = 1.0


def sent_one_by_one(send: Callable[[_Sent], None]) -> Callable[[_Sent], None]:
    """Return a sender that several threads of the backend may use at once."""
    lock = threading.RLock()

    def one_by_one(message: _Sent) -> None:
        with lock:
            send(message)

    return one_by_one


class OutputLimit:
    """Sends the first lines of output without secrets, and counts the others.

    It belongs between the backend's output and the sender. ``lines`` may still be sent; ``limit`` is for the message.
    """

    def __init__(self, send: Callable[[Message], None], lines: int, limit: int) -> None:
        self._send = send
        self._left = lines
        self._limit = limit
        self._dropped = 0

    def send(self, output: Output) -> None:
        """Send a line, or count it."""
        if self._left > 0:
            self._left -= 1
            self._send(replace(output, text=one_line(output.text)))
        else:
            # Without the search for secrets: a revision may print a line for each row.
            self._dropped += 1

    def finish(self) -> None:
        """Send the number of lines that were not sent, if there are any."""
        if self._dropped:
            self._send(
                Output(
                    logging.WARNING,
                    "lambda_migrate",
                    f"{self._dropped:,} further lines of output were not logged:"
                    f" BACKEND_OUTPUT_LINES limits a run to {self._limit:,}",
                )
            )


class _LinesAsMessages(io.RawIOBase):
    """A raw stream that sends each line as a message. The text layer above it is the usual one that code expects."""

    def __init__(self, send: Callable[[Output], None], source: str, descriptor: int) -> None:
        self._send = send
        self._source = source
        self._descriptor = descriptor
        self._rest = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Buffer, /) -> int:
        written = bytes(data)
        *lines, self._rest = (self._rest + written).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            text = line.decode(errors="replace")
            # If the supervisor has closed the pipe, the loss of the backend's last output is no error.
            with contextlib.suppress(OSError):
                if text.strip():
                    self._send(Output(logging.INFO, self._source, text))
        return len(written)

    def finish(self) -> None:
        """Send the last line, which may lack its newline."""
        self.write(b"\n")


def _text(lines: _LinesAsMessages) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(lines), encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _send_record(send: Callable[[Output], None], record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string in the backend must not end its migration
        text = f"{record.msg} {record.args}"
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    with contextlib.suppress(OSError):
        # A backend's own subclass of int or str would not be known in the function's process.
        send(Output(int(record.levelno), str(record.name), text))


def _take_over_logging(send: Callable[[Output], None]) -> None:
    """Send each record once, whatever handlers the backend sets up, replaces or cuts off from the root logger.

    Handlers for the console are skipped, because they would repeat the record without its level. Others get theirs.
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
        """Replace the functions that would disable every logger that the config file does not name."""

    logging.Logger.callHandlers = call_handlers  # type: ignore[assignment, method-assign]
    logging.config.fileConfig = no_configuration
    logging.config.dictConfig = no_configuration
    # An error in one of the backend's handlers is not printed: it does not concern the migration.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers = []
    root.setLevel(logging.INFO)
    # Alembic's "Running upgrade a -> b" would repeat the event revision.started.
    logging.getLogger("alembic.runtime").setLevel(logging.WARNING)


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


def _read_lines(descriptor: int, send: Callable[[Output], None]) -> None:
    """Send the console output of programs that the backend starts, and of code that is not Python."""
    lines = _LinesAsMessages(send, "console", descriptor)
    while data := os.read(descriptor, 65536):
        lines.write(data)
    lines.finish()


@contextlib.contextmanager
def output_as_messages(send: Callable[[Output], None]) -> Iterator[None]:
    """Turn everything the backend's code logs and prints into messages, for the rest of this process's life."""
    _take_over_logging(send)
    readable, writable = os.pipe()
    for standard in (1, 2):
        os.dup2(writable, standard)
    os.close(writable)
    console = threading.Thread(target=_read_lines, args=(readable, send), daemon=True)
    console.start()
    out, err = _LinesAsMessages(send, "stdout", 1), _LinesAsMessages(send, "stderr", 2)
    # These streams are not restored: output during the exit of the process has no other destination.
    streams = sys.stdout, sys.stderr = _text(out), _text(err)
    try:
        yield
    finally:
        for stream, lines in zip(streams, (out, err), strict=True):
            with contextlib.suppress(ValueError):  # closed by the backend
                stream.flush()
            lines.finish()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for standard in (1, 2):
            os.dup2(nowhere, standard)
        console.join(_LAST_OUTPUT_S)
