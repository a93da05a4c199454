"""Measures a revision on its own database."""
