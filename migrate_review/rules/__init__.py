"""The rules, the checks for each of them, and acknowledgements of findings."""
