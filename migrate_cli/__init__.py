"""The migration function from a terminal."""

__version__ = "0.2.0"
