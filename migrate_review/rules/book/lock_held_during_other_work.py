"""The rule ``lock-held-during-other-work``. `locks.locks_held_meanwhile` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="lock-held-during-other-work",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="The transaction holds {lock} on {table} while it {work}. Until it ends, {blocked} of {table} wait.",
    fix="""\
# Keep the statement that locks {table} in this revision, and move the rest to the next one:
op.execute({sql!r})""",
    measured="The locks that each statement takes, and the work after it in the same transaction: rows read and changed"
    " in other tables, sleeps, and time in which only Python runs.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("UPDATE products SET weight = upper(weight)")


def downgrade() -> None:
    op.drop_column("orders", "channel")
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
""",
)
