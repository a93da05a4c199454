"""The rule ``enum-value-removed``. `compatibility.enum_values` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="enum-value-removed",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="The running application fails when it writes '{old}'.",
    fix="# Stop writing '{old}', change the rows that have it, and keep the label in {type}: it does no harm.",
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TYPE order_state RENAME TO order_state_old")
    op.execute("CREATE TYPE order_state AS ENUM ('open', 'paid')")
    op.execute(
        "ALTER TABLE orders ALTER COLUMN state DROP DEFAULT, ALTER COLUMN state TYPE order_state"
        " USING replace(state::text, 'shipped', 'paid')::order_state"
    )
    op.execute("ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'open'")
    op.execute("DROP TYPE order_state_old")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
""",
    good="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_state", "orders", "state <> 'shipped'", postgresql_not_valid=True)
""",
)
