"""The rule ``unnamed-constraint``. `keys.names` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="unnamed-constraint",
    severity=Severity.NOTE,
    theme=Theme.KEYS,
    hazard=(
        "The revision does not name the constraint {name}. A later revision must rely on the name that the"
        " server chose."
    ),
    fix="{named}",
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    op.create_table(
        "coupons",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.UniqueConstraint("code"),
        sa.PrimaryKeyConstraint("id", name="pk_coupons"),
    )
""",
    good="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "total >= 0", postgresql_not_valid=True)
""",
)
