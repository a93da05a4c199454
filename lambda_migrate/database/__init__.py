"""The secret, connections of the function itself, and the migration lock."""
