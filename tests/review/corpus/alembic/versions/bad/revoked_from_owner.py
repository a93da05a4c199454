"""Orders are closed to whoever made them."""

# expect: privilege-revoked error

from alembic import op

revision = "revoked_from_owner"
down_revision = "shop"


def upgrade() -> None:
    op.execute("REVOKE ALL ON orders FROM CURRENT_USER")


def downgrade() -> None:
    op.execute("GRANT ALL ON orders TO CURRENT_USER")
