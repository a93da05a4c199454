"""Two products with numbers of their own."""

# expect: sequence-behind-rows error

from alembic import op

revision = "ids_given"
down_revision = "shop"


def upgrade() -> None:
    op.execute("INSERT INTO products (id, name) VALUES (5001, 'tea'), (5002, 'jam')")


def downgrade() -> None:
    op.execute("DELETE FROM products WHERE id IN (5001, 5002)")
