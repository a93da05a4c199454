"""What goes wrong when a package is built."""


class PackageError(Exception):
    """A backend cannot be packaged. The message is one line: what is wrong, where, and what to do about it."""
