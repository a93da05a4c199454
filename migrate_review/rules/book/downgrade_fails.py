"""The rule ``downgrade-fails``. `downgrade.downgrades` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-fails",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The downgrade fails: {failure}",
    fix="""\
# Correct downgrade(). If the revision cannot be downgraded, acknowledge the finding:
# -- reviewed: downgrade-fails the release notes say that there is no downgrade""",
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    raise NotImplementedError
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "shop")
""",
)
