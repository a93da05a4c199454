"""A number is cut out of the reference."""

# expect: upgrade-depends-on-data warning, scan-while-locked error

from alembic import op

revision = "text_cut_and_cast"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN legacy_number integer")
    op.execute("UPDATE orders SET legacy_number = substr(legacy_ref, 3)::integer")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN legacy_number")
