"""The errors of a build."""


class PackageError(Exception):
    """A backend cannot be packaged. The message is one line with the problem, the place and the fix.

    ``details`` is the complete output of a failed tool, or empty.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
