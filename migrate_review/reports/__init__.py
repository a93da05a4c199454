"""A review as each reader wants it: people in a terminal or a pull request, programs, GitHub."""
