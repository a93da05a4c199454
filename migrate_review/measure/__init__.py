"""Measures what a revision does, on a database of the review."""
