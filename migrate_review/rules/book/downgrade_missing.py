"""The rule ``downgrade-missing``. `downgrade.missing` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-missing",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The revision cannot be downgraded: it has no downgrade().",
    fix="""\
def downgrade() -> None:
{undo}""",
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "shop")
""",
)
