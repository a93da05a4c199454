"""The rule ``downgrade-empty``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-empty",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="downgrade() does nothing, so the database then counts as at the revision before and is not.",
    fix="def downgrade() -> None:\n{undo}",
    measured="The upgrade, the downgrade and the upgrade once more, with rows in the tables.",
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
