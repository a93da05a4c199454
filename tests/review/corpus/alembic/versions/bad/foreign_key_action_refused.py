"""Items cannot lose their order."""

# expect: adding-foreign-key-constraint warning, foreign-key-action-changed warning

from alembic import op

revision = "foreign_key_action_refused"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE items DROP CONSTRAINT fk_items_order_id_orders")
    op.execute(
        "ALTER TABLE items ADD CONSTRAINT fk_items_order FOREIGN KEY (order_id) REFERENCES orders"
        " ON DELETE SET NULL NOT VALID"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE items DROP CONSTRAINT fk_items_order")
    op.execute(
        "ALTER TABLE items ADD CONSTRAINT fk_items_order_id_orders FOREIGN KEY (order_id) REFERENCES orders"
        " ON DELETE CASCADE"
    )
