"""Measures how long users wait for the function and for its alternatives. Each module answers one question."""
