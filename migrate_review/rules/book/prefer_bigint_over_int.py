"""The rule ``prefer-bigint-over-int``. `keys.new_tables_and_columns` and `keys.keys_made_wider` check it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="prefer-bigint-over-int",
    severity=Severity.NOTE,
    theme=Theme.KEYS,
    hazard=(
        "{table}.{column} has only 32 bits: inserts fail after 2,147,483,647. A later change of its type rewrites the"
        " table."
    ),
    fix='sa.Column("{column}", sa.BigInteger(), sa.Identity(), nullable=False)',
    known_to_squawk=True,
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    op.create_table(
        "clicks", sa.Column("id", sa.Integer(), sa.Identity()), sa.PrimaryKeyConstraint("id", name="pk_clicks")
    )
""",
    good="""\
def upgrade() -> None:
    op.create_table(
        "letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_letters_customer_id_customers"),
        sa.PrimaryKeyConstraint("id", name="pk_letters"),
    )
    op.create_index("ix_letters_customer_id", "letters", ["customer_id"])
""",
)
