"""The rule ``enum-value-renamed``. `compatibility.enum_values` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="enum-value-renamed",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="The running application fails when it writes '{old}' or reads '{new}'.",
    fix="""\
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE {type} ADD VALUE IF NOT EXISTS {new_label}")
# then let the application write {new_label}, and change the rows in batches""",
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TYPE order_state RENAME VALUE 'shipped' TO 'sent'")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: changing-column-type we stop the application before a downgrade
    with op.get_context().autocommit_block():
        op.execute("ALTER TYPE order_state ADD VALUE IF NOT EXISTS 'lost'")
""",
)
