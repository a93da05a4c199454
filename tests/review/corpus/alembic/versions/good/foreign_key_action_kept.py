"""Items go with their product."""

from alembic import op

revision = "foreign_key_action_kept"
down_revision = "shop_not_valid"


def upgrade() -> None:
    op.execute("ALTER TABLE items DROP CONSTRAINT fk_items_product")
    op.execute(
        "ALTER TABLE items ADD CONSTRAINT fk_items_product FOREIGN KEY (product_id) REFERENCES products"
        " ON DELETE CASCADE NOT VALID"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE items DROP CONSTRAINT fk_items_product")
    op.execute(
        "ALTER TABLE items ADD CONSTRAINT fk_items_product FOREIGN KEY (product_id) REFERENCES products NOT VALID"
    )
