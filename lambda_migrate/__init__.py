"""Runs a backend's Alembic migrations from inside AWS Lambda."""

import sys
from pathlib import Path

# The package's folder of the function's own libraries. A checkout has none. The process of env.py takes the folder off
# its path again (`lambda_migrate.env_py.fork_server`): it has the backend's libraries, which lie in another folder.
LIBRARIES = Path(__file__).absolute().parents[1] / "libraries"
BACKEND_LIBRARIES = LIBRARIES.with_name("backend-libraries")
# In a package for another machine than Lambda: what Lambda's own Python has, if the backend uses it.
LAMBDAS_LIBRARIES = LIBRARIES.with_name("lambda-libraries")

if LIBRARIES.is_dir():
    sys.path.insert(0, str(LIBRARIES))
