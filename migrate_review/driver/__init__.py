"""The process that runs env.py for a review, in the interpreter of the backend."""
