"""Runs env.py and revisions in a process of the backend's own interpreter."""
