"""The rule ``upgrade-not-repeatable``. `downgrade.repetition` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="upgrade-not-repeatable",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The upgrade fails after a downgrade: {failure}",
    fix="def downgrade() -> None:\n    # in addition to the existing code:\n{undo}",
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    pass
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "shop")
""",
)
