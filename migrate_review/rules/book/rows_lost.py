"""The rule ``rows-lost``. `downgrade.data` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="rows-lost",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="Rows of {table} are lost: the downgrade does not restore them.",
    fix="""\
# keep the rows in another table; if upgrade() deletes only some of them, use the same condition:
op.execute("CREATE TABLE {archive} AS SELECT * FROM {table}")
# downgrade:
op.execute("INSERT INTO {table} SELECT * FROM {archive}")""",
    measured="Every row before the upgrade and after the downgrade.",
    bad="""\
def upgrade() -> None:
    op.execute("TRUNCATE visits")


def downgrade() -> None:
    op.execute("SELECT 1")
""",
    good="""\
def upgrade() -> None:
    op.execute("UPDATE orders SET note = note WHERE id = 1")
""",
)
