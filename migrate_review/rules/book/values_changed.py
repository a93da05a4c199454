"""The rule ``values-changed``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="values-changed",
    severity=Severity.WARNING,
    theme=Theme.DOWNGRADE,
    hazard="Up and down again leaves other values in {table}.{column} than there were.",
    fix="""\
# Let downgrade() compute the old values, keep them beside the new ones, or say why they are not needed:
# -- reviewed: values-changed the old values are not needed, as nothing reads them""",
    measured="Every row before the upgrade and after the downgrade.",
    bad="""\
def upgrade() -> None:
    op.execute("UPDATE customers SET name = lower(name) || '!'")


def downgrade() -> None:
    op.execute("SELECT 1")
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
""",
)
