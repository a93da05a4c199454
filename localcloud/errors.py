"""The one exception that the local cloud raises on purpose."""


class LocalCloudError(Exception):
    """Something a developer can act on; its text says what happened and what to do, and is shown as it is."""
