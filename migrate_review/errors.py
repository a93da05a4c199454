"""The one exception that the reviewer raises on purpose."""

from __future__ import annotations


class ReviewError(Exception):
    """What keeps a review from being made, in one line that says what to do; it is shown as it is.

    What is wrong with a revision that does run is no such error but an observation.
    """
