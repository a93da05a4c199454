"""The rule ``prefer-timestamp-tz``. `keys.new_tables_and_columns` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="prefer-timestamp-tz",
    severity=Severity.NOTE,
    theme=Theme.KEYS,
    hazard="{table}.{column} does not store the time zone of its values.",
    fix='sa.Column("{column}", sa.DateTime(timezone=True))',
    known_to_squawk=True,
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("sent_at", sa.DateTime()))
""",
    good="""\
def upgrade() -> None:
    op.add_column(
        "orders", sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
    )
""",
)
