"""The rule ``downgrade-fails``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-fails",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The revision cannot be taken back: {failure}",
    fix="""\
# Correct downgrade(). If there is no way back, say so:
# -- reviewed: downgrade-fails there is no way back, as the release notes say""",
    measured="The upgrade, the downgrade and the upgrade once more, with rows in the tables.",
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
