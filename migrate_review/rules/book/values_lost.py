"""The rule ``values-lost``. `downgrade.data` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="values-lost",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The values of {table}.{column} are lost: the downgrade does not restore them.",
    fix="""\
# keep the values in another table:
op.execute("CREATE TABLE {archive} AS SELECT {key}, {column} FROM {table}")
# downgrade, after it adds the column again:
op.execute("UPDATE {table} SET {column} = archive.{column} FROM {archive} AS archive WHERE ({condition})")""",
    measured="Every row before the upgrade and after the downgrade.",
    bad="""\
def upgrade() -> None:
    op.drop_column("items", "gift_message")


def downgrade() -> None:
    op.add_column("items", sa.Column("gift_message", sa.Text()))
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: ban-drop-column no release since 4.2 maps the column
    # -- reviewed: values-lost the messages were printed, and nobody needs them now
    op.drop_column("items", "gift_message")
""",
)
