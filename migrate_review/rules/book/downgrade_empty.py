"""The rule ``downgrade-empty``. `downgrade.downgrades` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-empty",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard=(
        "downgrade() does nothing. The version table then shows the previous revision, but the schema does not match."
    ),
    fix="def downgrade() -> None:\n{undo}",
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
