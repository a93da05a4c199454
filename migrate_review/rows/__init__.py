"""Rows for every table, such as its constraints allow."""
