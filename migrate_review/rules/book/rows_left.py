"""The rule ``rows-left``. `downgrade.data` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="rows-left",
    severity=Severity.WARNING,
    theme=Theme.DOWNGRADE,
    hazard="Rows that the upgrade added to {table} remain after the downgrade. The next upgrade adds them again.",
    fix="# In downgrade(), delete the rows that upgrade() inserts into {table}, by their keys.",
    measured="Every row before the upgrade and after the downgrade.",
    bad="""\
def upgrade() -> None:
    op.execute("INSERT INTO products (name) VALUES ('Voucher')")


def downgrade() -> None:
    op.execute("SELECT 1")
""",
    good="""\
def upgrade() -> None:
    op.execute("INSERT INTO products (name, weight) VALUES ('Gift card', '1') ON CONFLICT DO NOTHING")
    op.bulk_insert(sa.table("products", sa.column("name")), [{"name": "Voucher"}, {"name": "Wrapping"}])
    op.get_bind().execute(sa.text("INSERT INTO products (name) VALUES (:name)"), {"name": "Ribbon"})
""",
)
