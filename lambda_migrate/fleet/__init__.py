"""Rollouts: the list and order of targets, the migration of one target, and the report."""
