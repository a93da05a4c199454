"""An index that does not serve the key."""

# expect: foreign-key-without-index warning

import sqlalchemy as sa
from alembic import op

revision = "foreign_key_index_partial"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_letters_customer_id_customers"),
        sa.PrimaryKeyConstraint("id", name="pk_letters"),
    )
    op.create_index("ix_letters_unsent", "letters", ["customer_id"], postgresql_where=sa.text("sent_at IS NULL"))


def downgrade() -> None:
    op.drop_table("letters")
