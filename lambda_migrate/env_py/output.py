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

from lambda_migrate.env_py.messages import Message, Output
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

# How long to wait for what a program that a revision started may still have to say.
_LAST_WORDS_S = 1.0


def sent_one_by_one(send: Callable[[Message], None]) -> Callable[[Message], None]:
    """Make a sender that the backend's threads may use at once."""
    lock = threading.RLock()

    def one_by_one(message: Message) -> None:
        with lock:
            send(message)

    return one_by_one


class _LinesAsMessages(io.RawIOBase):
    """Standard output or error below its text layer, so that code finds there all that it is used to find."""

    def __init__(self, send: Callable[[Message], None], source: str, descriptor: int) -> None:
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
        for line in lines:
            text = one_line(line.decode(errors="replace"))
            # When nobody listens any more, the backend's last words are not worth an error.
            with contextlib.suppress(OSError):
                if text:
                    self._send(Output(logging.INFO, self._source, text))
        return len(written)

    def finish(self) -> None:
        """Send what stands on the last line."""
        self.write(b"\n")


def _text(lines: _LinesAsMessages) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(lines), encoding="utf-8", errors="backslashreplace", line_buffering=True)


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
    lines = _LinesAsMessages(send, "console", descriptor)
    while data := os.read(descriptor, 65536):
        lines.write(data)
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
    out, err = _LinesAsMessages(send, "stdout", 1), _LinesAsMessages(send, "stderr", 2)
    # Not put back: what is still said as the process ends has nowhere to go.
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
        console.join(_LAST_WORDS_S)
