"""The migration function from a terminal."""
