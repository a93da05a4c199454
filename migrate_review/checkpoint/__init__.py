"""Writes checkpoints: what an empty database needs, and the proof that it is equal to replaying the revisions."""
