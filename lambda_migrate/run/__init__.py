"""One run: its attempts, and the revisions that the version table confirms."""
