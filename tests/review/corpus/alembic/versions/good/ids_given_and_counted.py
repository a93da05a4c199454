"""Two products with numbers of their own, and the sequence after them."""

from alembic import op

revision = "ids_given_and_counted"
down_revision = "shop"


def upgrade() -> None:
    op.execute("INSERT INTO products (id, name) VALUES (5001, 'tea'), (5002, 'jam')")
    op.execute("SELECT setval('products_id_seq', (SELECT max(id) FROM products))")


def downgrade() -> None:
    op.execute("DELETE FROM products WHERE id IN (5001, 5002)")
