"""Revision files and their history in git, read without running them."""
