"""Writes a review in the format of each reader: a terminal, a pull request, a program, GitHub."""
