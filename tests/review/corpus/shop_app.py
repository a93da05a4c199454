"""The application that a revision had better not import."""

LABEL = "fragile"
