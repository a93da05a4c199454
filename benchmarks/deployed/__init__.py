"""The handlers of the other contestants that are functions."""
