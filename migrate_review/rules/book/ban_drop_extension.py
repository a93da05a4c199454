"""The rule ``ban-drop-extension``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="ban-drop-extension",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="Queries of the running application that use a function, an operator or a type of {name} fail after this"
    " revision, and indexes that need it are gone.",
    fix="""\
# Drop {name} when no release uses it, and acknowledge the finding:
# -- reviewed: ban-drop-extension no release uses it""",
    known_to_squawk=True,
    measured="The extensions and their schemas before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP EXTENSION pgcrypto")
""",
    good="""\
def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
""",
)

_ENTRY = "extension "


def check(case: Case) -> Iterator[Finding]:
    """Yield the extensions that are dropped, and those whose functions need another schema's name."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for entry, was in before.others.items():
        if not entry.startswith(_ENTRY):
            continue
        now = after.others.get(entry)
        name, schema = entry.removeprefix(_ENTRY), was.partition(" ")[2]
        if now is None:
            yield case.found(RULE, f"the upgrade drops the extension {name}", name=name)
        elif now.partition(" ")[2] != schema:
            evidence = f"the upgrade moves the extension {name} from {schema} to {now.partition(' ')[2]}"
            yield case.found(RULE, evidence, name=f"{schema}.{name}")
