"""Parcels without an order."""

# expect: adding-foreign-key-constraint warning, downgrade-depends-on-data warning

from alembic import op

revision = "downgrade_foreign_key_back"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE parcels DROP CONSTRAINT fk_parcels_order_id")


def downgrade() -> None:
    op.execute("ALTER TABLE parcels ADD CONSTRAINT fk_parcels_order_id FOREIGN KEY (order_id) REFERENCES orders")
