"""Decides from the source of an env.py whether it runs only inside a Flask application."""

from __future__ import annotations

import ast

# Code that calls one of these, such as app.test_request_context(), makes a context itself or tests for one.
_CONTEXTS = ("app_context", "request_context")
# The errors by which code recovers from a use of current_app outside of a context.
_RECOVERS = frozenset({"RuntimeError", "Exception", "BaseException"})


def is_needed(source: str) -> bool:
    """Return whether the source reads flask.current_app without a context of its own, and without an alternative."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        return "flask" in source  # written for a newer Python than the build's; a real error is seen when env.py runs
    uses = _Uses(module)
    return uses.count(module) > uses.recovered() and not uses.are_tested() and not _makes_a_context(module)


class _Uses:
    """The places of a module that read current_app, by any name under which the module imports it."""

    def __init__(self, module: ast.Module) -> None:
        self._module = module
        self._names: set[str] = set()
        self._flask: set[str] = set()
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.module in {"flask", "flask.globals"}:
                self._names |= {alias.asname or alias.name for alias in node.names if alias.name == "current_app"}
            elif isinstance(node, ast.Import):
                self._flask |= {alias.asname or alias.name for alias in node.names if alias.name == "flask"}

    def count(self, within: ast.AST) -> int:
        return sum(map(self._is_one, ast.walk(within)))

    def recovered(self) -> int:
        """Return the number of uses in a try that goes on without a context."""
        tries = [node for node in ast.walk(self._module) if isinstance(node, ast.Try)]
        return sum(self.count(statement) for one in tries if _recovers(one) for statement in one.body)

    def are_tested(self) -> bool:
        """Return whether a condition is about current_app itself: outside of a context, it is false."""
        tests = [node.test for node in ast.walk(self._module) if isinstance(node, (ast.If, ast.IfExp))]
        while tests:
            test = tests.pop()
            if self._is_one(test):
                return True
            if isinstance(test, ast.BoolOp):
                tests += test.values
            elif isinstance(test, ast.UnaryOp):
                tests.append(test.operand)
            elif isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "bool":
                tests += test.args
        return False

    def _is_one(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr == "current_app" and isinstance(node.value, ast.Name) and node.value.id in self._flask
        return isinstance(node, ast.Name) and node.id in self._names


def _recovers(statement: ast.Try) -> bool:
    for handler in statement.handlers:
        if handler.type is None:
            return True
        if any(isinstance(node, ast.Name) and node.id in _RECOVERS for node in ast.walk(handler.type)):
            return True
    return False


def _makes_a_context(module: ast.Module) -> bool:
    calls = [node.func for node in ast.walk(module) if isinstance(node, ast.Call)]
    names = [func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls]
    return any(name.endswith(_CONTEXTS) for name in names)
