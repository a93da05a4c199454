"""The rule ``downgrade-depends-on-data``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-depends-on-data",
    severity=Severity.WARNING,
    theme=Theme.DOWNGRADE,
    hazard="The downgrade fails once rows use what the upgrade allows: {failure}",
    fix="# Let downgrade() change or delete the rows that only the new schema allows, before the old one is back.",
    measured="A second downgrade, after one row was changed for each new label, longer or larger value, NULL and"
    " duplicate that the new schema allows.",
    bad="""\
def upgrade() -> None:
    op.alter_column("items", "quantity", type_=sa.BigInteger())


def downgrade() -> None:
    op.alter_column("items", "quantity", type_=sa.Integer())
""",
)
