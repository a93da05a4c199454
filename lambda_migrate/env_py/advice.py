"""Hints for errors of third-party libraries whose messages do not say what to do. The reviewer gives them, too."""

from __future__ import annotations

import traceback


def advice(error: BaseException, *, began: bool) -> str:
    """Return what to do about an exception of env.py or a revision, or an empty text.

    ``began`` is True if Alembic had read the version table.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError) and any(frame.name == "autocommit_block" for frame in frames):
        return (
            " (an autocommit_block cannot leave a transaction that env.py has begun around all revisions: leave the"
            " transaction to context.begin_transaction())"
        )
    if "requires an async driver" in str(error):
        return " (set DB_DRIVER to the driver that env.py works with, such as postgresql+asyncpg)"
    if type(error).__name__ == "UnknownServiceError":  # botocore's; the backend may have another botocore, or none
        return (
            " (the package has the data of those AWS services that the builder found in the code: name the others in"
            " `aws_services` of the stage)"
        )
    if isinstance(error, KeyError) and frames and frames[-1].filename.endswith("configparser.py"):
        return " (a section that the configuration lacks; fileConfig needs loggers, handlers and formatters)"
    if isinstance(error, KeyError) and not began:
        return " (an environment variable? See DATABASE_URL_ENV and DATABASE_ENV)"
    return ""
