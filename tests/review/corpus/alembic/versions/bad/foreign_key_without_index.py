"""Letters to customers."""

# expect: foreign-key-without-index warning

import sqlalchemy as sa
from alembic import op

revision = "foreign_key_without_index"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_letters_customer_id_customers"),
        sa.PrimaryKeyConstraint("id", name="pk_letters"),
    )


def downgrade() -> None:
    op.drop_table("letters")
