"""Fills tables with rows that their constraints allow, and compares rows."""
