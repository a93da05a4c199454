"""Decides by static analysis whether env.py uses Alembic's default version table.

If so, nothing is pending in a database with exactly the packaged heads, and the function need not run env.py to know
that. A "no" costs a second, but a wrong "yes" would be a wrong result. So any code that is not clearly harmless is a
"no".
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION_TABLE = "alembic_version"

# Names that move the version table or change the search path, anywhere in the backend.
_TELLTALE = re.compile(r"version_table|search_path|schema_translate_map|on_version_apply")
# Names that can do so through the connection that env.py makes.
_TELLTALE_OF_ENV_PY = re.compile(r"current_app|connect_args|[?&]options=|[\"']options[\"']")
# Calls that execute SQL, or might. env.py may need them in each run.
_EXECUTES = frozenset({"execute", "exec_driver_sql", "scalar", "scalars", "cursor", "listen", "listens_for"})
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def why_env_py_is_needed(env_py: str, others: Iterable[str]) -> str | None:
    """Return the reason why only env.py knows the version table, or None if Alembic's default applies.

    ``others`` are the sources of the backend's packaged modules without the revisions.
    """
    try:
        module = ast.parse(env_py)
    except SyntaxError:
        return "env.py cannot be parsed"
    matches = [_TELLTALE_OF_ENV_PY.search(env_py), *map(_TELLTALE.search, (env_py, *others))]
    reason = next((f"the backend's code contains {match[0]}" for match in matches if match), None)
    return reason or next(_reasons(module), None)


def _reasons(module: ast.Module) -> Iterator[str]:
    """Yield the reasons in env.py's own code. Only the first one is reported, so their order matters."""
    calls = [(_name(node), node) for node in ast.walk(module) if isinstance(node, ast.Call)]
    configured = [call for name, call in calls if name == "context.configure"]
    own_functions = _own_functions(module)
    if not configured or "context.run_migrations" not in dict(calls):
        yield "env.py does not itself call context.configure() and context.run_migrations()"
    if any(keyword.arg is None for call in configured for keyword in call.keywords):
        yield "env.py gives context.configure() options that are not written there"
    yield from _uses_of_the_connection(calls, _connections(configured), own_functions | {"context.configure"})
    if _has_loop(module, own_functions):
        yield "env.py runs migrations in a loop"


def has_loop(env_py: str) -> bool:
    """Return whether env.py may run the migrations several times: for each tenant, database or section."""
    try:
        module = ast.parse(env_py)
    except SyntaxError:
        return False
    return _has_loop(module, _own_functions(module))


def is_async(env_py: str) -> bool:
    """Return whether env.py may run an event loop: its code contains asyncio, anyio or a coroutine."""
    return re.search(r"async|anyio|await|run_sync", env_py) is not None


def _has_loop(module: ast.Module, own_functions: set[str]) -> bool:
    repeated = [node for loop in ast.walk(module) if isinstance(loop, _LOOPS) for node in ast.walk(loop)]
    runs = own_functions | {"context.run_migrations"}
    return any(isinstance(node, ast.Call) and _name(node) in runs for node in repeated)


def _own_functions(module: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(module) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def _connections(configured: Iterable[ast.Call]) -> set[str]:
    """Return the names of the variables that are context.configure()'s ``connection``."""
    keywords = (keyword for call in configured for keyword in call.keywords if keyword.arg == "connection")
    return {keyword.value.id for keyword in keywords if isinstance(keyword.value, ast.Name)}


def _uses_of_the_connection(
    calls: Iterable[tuple[str, ast.Call]], connections: set[str], allowed: set[str]
) -> Iterator[str]:
    for name, call in calls:
        if name.rpartition(".")[2] in _EXECUTES:
            yield f"env.py calls {name}()"
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        names = {argument.id for argument in arguments if isinstance(argument, ast.Name)}
        if names & connections and name not in allowed:
            yield f"env.py gives its connection to {name}()"


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)
