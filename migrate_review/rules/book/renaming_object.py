"""The rule ``renaming-object``. `compatibility.squawk_remarks` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="renaming-object",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application that uses {old} fails after this revision.",
    fix="# Create {new} in addition to {old}. Release an application that uses {new}. Drop {old} in a later revision.",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER VIEW open_orders RENAME TO unpaid_orders")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER INDEX ix_products_name RENAME TO ix_products_by_name")
""",
)
