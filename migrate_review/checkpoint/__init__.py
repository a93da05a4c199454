"""Writes checkpoints, and verifies that each has the same result as replaying the revisions."""
