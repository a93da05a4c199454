"""Rollouts: which targets, in which order, one target at a time, and the report."""
