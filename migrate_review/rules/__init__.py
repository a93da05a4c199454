"""The rules, the checks that find where a revision breaks them, and what its author acknowledged."""
