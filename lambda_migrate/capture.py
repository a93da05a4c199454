"""Lets env.py configure, log and print as it likes, without a line of it getting out except as a message."""

from __future__ import annotations

import contextlib
import io
import logging
import logging.config
from typing import TYPE_CHECKING, Any

from lambda_migrate.messages import Message, Output
from lambda_migrate.telemetry import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
                self._send(Output(logging.INFO, self._source, one_line(line)))
        return len(text)

    def flush(self) -> None:
        """Lines are sent when they are whole; the last one in `close`."""

    def close(self) -> None:
        if self._rest.strip():
            self.write("\n")
        super().close()


class _RecordsAsMessages(logging.Handler):
    """Sends what the backend's loggers say to the one logger that writes."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(Output(record.levelno, record.name, one_line(record.getMessage())))
        except Exception:  # noqa: BLE001 - a wrong format string in the backend must not end its migration
            self.handleError(record)


@contextlib.contextmanager
def output_as_messages(send: Callable[[Message], None]) -> Iterator[None]:
    """Turn everything the backend's code logs and prints into messages, for the rest of this process's life."""
    root = logging.getLogger()
    root.handlers = [_RecordsAsMessages(send)]
    root.setLevel(logging.INFO)
    # "Running upgrade a -> b" is told by revision.started already.
    logging.getLogger("alembic.runtime").setLevel(logging.WARNING)

    def no_configuration(*_: Any, **__: Any) -> None:  # noqa: ANN401
        """Stands in for the functions that would silence every logger the config file does not name."""

    logging.config.fileConfig = no_configuration
    logging.config.dictConfig = no_configuration
    out, err = _LinesAsMessages(send, "stdout"), _LinesAsMessages(send, "stderr")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.close()
            err.close()
