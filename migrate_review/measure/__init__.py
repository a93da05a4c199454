"""Measures what a revision does, on a database of its own."""
