"""The rule ``lock-held-during-other-work``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="lock-held-during-other-work",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="All {blocked} of {table} wait until the transaction ends: it holds {lock} while it {work}.",
    fix="""\
# Give what locks {table} a revision of its own, and the rest the next one:
op.execute({sql!r})""",
    measured="The locks that each statement takes, and what runs after it in the same transaction: rows read and"
    " changed elsewhere, sleeps, and time in which only Python runs.",
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
