"""The command line of the migration function."""

__version__ = "0.2.0"
