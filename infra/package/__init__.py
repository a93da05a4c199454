"""Builds the function's package: the directory that becomes ``/var/task``.

It holds our own code, the dependencies, and below ``backend/`` what a backend needs to run its Alembic migrations.
`builder` is the entry. Nothing is imported here, because the reviewer needs only a few of the modules.
"""
