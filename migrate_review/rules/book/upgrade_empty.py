"""The rule ``upgrade-empty``. `sources.nothing_done` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="upgrade-empty",
    severity=Severity.NOTE,
    theme=Theme.GRAPH,
    hazard="The revision does nothing.",
    fix="# Remove the file, or complete upgrade().",
    measured="Nothing: the rule reads the revision files.",
    bad="""\
def upgrade() -> None:
    pass
""",
    good="""\
def upgrade() -> None:
    op.execute("INSERT INTO products (name, weight) VALUES ('Gift card', '1') ON CONFLICT DO NOTHING")
    op.bulk_insert(sa.table("products", sa.column("name")), [{"name": "Voucher"}, {"name": "Wrapping"}])
    op.get_bind().execute(sa.text("INSERT INTO products (name) VALUES (:name)"), {"name": "Ribbon"})
""",
)
