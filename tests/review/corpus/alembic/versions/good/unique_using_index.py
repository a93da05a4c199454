"""One order for each reference."""

from alembic import op

revision = "unique_using_index"
down_revision = "shop_not_valid"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD CONSTRAINT uq_orders_legacy_ref UNIQUE USING INDEX uq_orders_legacy_ref")


def downgrade() -> None:
    op.drop_constraint("uq_orders_legacy_ref", "orders")
    with op.get_context().autocommit_block():
        op.create_index(
            "uq_orders_legacy_ref",
            "orders",
            ["legacy_ref"],
            unique=True,
            postgresql_concurrently=True,
            if_not_exists=True,
        )
