"""NOT VALID and VALIDATE in one transaction: the lock of the first is held while the second reads."""

# expect: constraint-missing-not-valid error, upgrade-depends-on-data warning

from alembic import op

revision = "foreign_key_validated_at_once"
down_revision = "shop"


def upgrade() -> None:
    op.create_foreign_key("fk_items_product_id", "items", "products", ["product_id"], ["id"], postgresql_not_valid=True)
    op.execute("ALTER TABLE items VALIDATE CONSTRAINT fk_items_product_id")


def downgrade() -> None:
    op.drop_constraint("fk_items_product_id", "items", type_="foreignkey")
