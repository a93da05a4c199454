"""The rule ``owner-changed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="owner-changed",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="{old} can no longer use or migrate {thing}: another role owns it.",
    fix="""\
# Grant {old} its privileges on {thing} in this revision. For a table: SELECT, INSERT, UPDATE, DELETE.""",
    measured="The owner of each object before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE orders OWNER TO pg_monitor")
""",
    good="""\
def upgrade() -> None:
    op.create_table(
        "channels",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
    )
    op.execute("ALTER TABLE channels OWNER TO pg_monitor")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the objects whose owner changes. Parts of a table have the table's owner."""
    before, after = case.observation.access_before, case.observation.access_after
    if before is None or after is None:
        return
    for name, old in before.owners.items():
        new = after.owners.get(name)
        if new is not None and new != old and not name.startswith("sequence "):
            yield case.found(RULE, f"the owner of {name} changes from {old} to {new}", thing=name, old=old)
