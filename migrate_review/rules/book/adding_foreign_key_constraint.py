"""The rule ``adding-foreign-key-constraint``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="adding-foreign-key-constraint",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every write to {table} and to {other} waits while PostgreSQL looks up each row of {table} in {other}.",
    fix="""\
# this revision:
op.execute("ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID")
# the next revision:
op.execute("ALTER TABLE {table} VALIDATE CONSTRAINT {name}")""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.create_foreign_key("fk_items_order", "items", "orders", ["order_id"], ["id"])
""",
    good="""\
def upgrade() -> None:
    op.create_foreign_key("fk_items_product_id", "items", "products", ["product_id"], ["id"], postgresql_not_valid=True)
""",
)
