"""What goes wrong when a package is built."""


class PackageError(Exception):
    """A backend cannot be packaged. The message is one line: what is wrong, where, and what to do about it.

    ``details`` is the whole output of a tool that failed, for whoever asks for it; empty if there is none.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
