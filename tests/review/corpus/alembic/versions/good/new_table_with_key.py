"""Letters to customers."""

import sqlalchemy as sa
from alembic import op

revision = "new_table_with_key"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_letters_customer_id_customers"),
        sa.PrimaryKeyConstraint("id", name="pk_letters"),
    )
    op.create_index("ix_letters_customer_id", "letters", ["customer_id"])


def downgrade() -> None:
    op.drop_table("letters")
