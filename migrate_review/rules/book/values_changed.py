"""The rule ``values-changed``. `downgrade.data` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="values-changed",
    severity=Severity.WARNING,
    theme=Theme.DOWNGRADE,
    hazard="Upgrade and downgrade leave different values in {table}.{column}.",
    fix="""\
# Compute the old values in downgrade(), keep them in another column, or acknowledge the finding:
# -- reviewed: values-changed nothing reads the old values""",
    measured="Every row before the upgrade and after the downgrade.",
    bad="""\
def upgrade() -> None:
    op.execute("UPDATE customers SET name = lower(name) || '!'")


def downgrade() -> None:
    op.execute("SELECT 1")
""",
    good="""\
def upgrade() -> None:
    op.add_column("customers", sa.Column("display_name", sa.Text()))


def downgrade() -> None:
    op.drop_column("customers", "display_name")
""",
)
