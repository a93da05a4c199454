"""The rule ``upgrade-fails``. `downgrade.failures` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="upgrade-fails",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The upgrade fails: {failure}",
    fix="# Correct the statement that fails. Nothing after it was measured.",
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.add_column("order", sa.Column("shop", sa.Text()))
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
""",
)
