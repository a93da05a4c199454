"""Collects the rules from the modules of ``book``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from migrate_review.rules import book

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding
    from migrate_review.rules.rule import Rule

    Check = Callable[[Case], Iterator[Finding]]


def _read() -> tuple[dict[str, Rule], tuple[Check, ...]]:
    modules = [import_module(f"{book.__name__}.{each.name}") for each in iter_modules(book.__path__)]
    rules: list[Rule] = [module.RULE for module in modules]
    checks = tuple(module.check for module in modules if hasattr(module, "check"))
    return {rule.name: rule for rule in sorted(rules, key=lambda rule: rule.name)}, checks


# The rules by name, and the checks of rules that have their own.
RULES, CHECKS = _read()


def finding(rule: str, revision: str, evidence: str, /, **names: str) -> Finding:
    """Return a finding on a revision. ``names`` fill the placeholders in the rule's texts."""
    return RULES[rule].finding(revision, evidence, **names)
