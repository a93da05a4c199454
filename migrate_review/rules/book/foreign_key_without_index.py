"""The rule ``foreign-key-without-index``. `keys.foreign_keys_without_index` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="foreign-key-without-index",
    severity=Severity.WARNING,
    theme=Theme.KEYS,
    hazard="Deleting a row of {other}, or changing its key, reads all of {table} to find the rows that refer to it.",
    fix="""\
with op.get_context().autocommit_block():
    op.create_index(
        "{index}", "{table}", [{columns}]{table_schema},
        postgresql_concurrently=True, if_not_exists=True,
    )""",
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_items_order_id", table_name="items", postgresql_concurrently=True, if_exists=True)
""",
    good="""\
def upgrade() -> None:
    op.create_table(
        "likes",
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_likes_customer_id_customers"),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], name="fk_likes_product_id_products"),
        sa.PrimaryKeyConstraint("customer_id", "product_id", name="pk_likes"),
    )
    op.create_index("ix_likes_product_id", "likes", ["product_id"])
""",
)
