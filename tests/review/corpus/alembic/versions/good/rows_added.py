"""Rows for a table that is there, which the downgrade finds by what it knows of them."""

import sqlalchemy as sa
from alembic import op

revision = "rows_added"
down_revision = "shop"


def upgrade() -> None:
    op.execute("INSERT INTO products (name, weight) VALUES ('Gift card', '1') ON CONFLICT DO NOTHING")
    op.bulk_insert(sa.table("products", sa.column("name")), [{"name": "Voucher"}, {"name": "Wrapping"}])
    op.get_bind().execute(sa.text("INSERT INTO products (name) VALUES (:name)"), {"name": "Ribbon"})


def downgrade() -> None:
    op.execute("DELETE FROM products WHERE name IN ('Gift card', 'Voucher', 'Wrapping', 'Ribbon')")
