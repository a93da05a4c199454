"""The rule ``upgrade-depends-on-data``. `downgrade.failures` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="upgrade-depends-on-data",
    severity=Severity.WARNING,
    theme=Theme.DOWNGRADE,
    hazard="The upgrade fails on rows that the current schema allows: {failure}",
    fix="# Correct these rows in an earlier revision.{queries}",
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.alter_column("customers", "nickname", nullable=False)
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE customers VALIDATE CONSTRAINT ck_nickname")
    op.alter_column("customers", "nickname", nullable=False)
    op.drop_constraint("ck_nickname", "customers")
""",
)
