"""The rule ``downgrade-incomplete``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-incomplete",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="After the downgrade the schema is not what it was, so the application of before meets another one.",
    fix="def downgrade() -> None:\n    # as well as what it does now:\n{undo}",
    measured="The upgrade, the downgrade and the upgrade once more, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.alter_column("orders", "note", server_default="")


def downgrade() -> None:
    op.execute("SELECT 1")
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_state_placed_at",
            "orders",
            ["state", "placed_at"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )
""",
)
