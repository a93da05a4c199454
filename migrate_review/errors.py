"""The exceptions that the reviewer raises on purpose."""

from __future__ import annotations


class ReviewError(Exception):
    """A review cannot be made. The message is one line for the user with the next step.

    A problem of a revision that runs is not an error but a finding.
    """


class EnvPyError(ReviewError):
    """env.py failed before any revision began, so nothing can be measured."""
