"""The rule ``downgrade-incomplete``. `downgrade.downgrades` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-incomplete",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The downgrade does not restore the schema, so the previous release may fail on it.",
    fix="def downgrade() -> None:\n    # in addition to the existing code:\n{undo}",
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.alter_column("orders", "note", server_default="")


def downgrade() -> None:
    op.execute("SELECT 1")
""",
    good="""\
def upgrade() -> None:
    op.alter_column("orders", "note", server_default="")


def downgrade() -> None:
    op.alter_column("orders", "note", server_default=None)
""",
)
