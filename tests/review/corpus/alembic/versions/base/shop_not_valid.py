"""First halves: constraints that are not validated yet, indexes without their constraint."""

from alembic import op

revision = "shop_not_valid"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE customers ADD CONSTRAINT ck_nickname CHECK (nickname IS NOT NULL) NOT VALID")
    op.execute("ALTER TABLE customers ADD CONSTRAINT ck_score CHECK (score >= 0) NOT VALID")
    op.execute(
        "ALTER TABLE items ADD CONSTRAINT fk_items_product FOREIGN KEY (product_id) REFERENCES products NOT VALID"
    )
    op.execute("CREATE UNIQUE INDEX uq_orders_legacy_ref ON orders (legacy_ref)")
    op.execute("ALTER TABLE visits ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY")
    op.execute("CREATE UNIQUE INDEX pk_visits ON visits (id)")


def downgrade() -> None:
    op.execute("ALTER TABLE visits DROP COLUMN id")
    op.execute("DROP INDEX uq_orders_legacy_ref")
    op.execute("ALTER TABLE items DROP CONSTRAINT fk_items_product")
    op.execute("ALTER TABLE customers DROP CONSTRAINT ck_score")
    op.execute("ALTER TABLE customers DROP CONSTRAINT ck_nickname")
