"""Builds the function's package: the directory that becomes ``/var/task``.

The package contains our own code, the dependencies, and below ``backend/`` the files that the backend's migrations
need. `builder` is the entry. Nothing is imported here, because the reviewer needs only a few of the modules.
"""
