"""One run: its attempts, and what the version table confirms of them."""
