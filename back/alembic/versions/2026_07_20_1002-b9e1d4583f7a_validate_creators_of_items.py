"""Validate creators of items

Users deleted before there was a foreign key are still named as creators. The foreign key would have
set those to NULL, so this does.

Revision ID: b9e1d4583f7a
Revises: 3a6f07e2c9d8
Create Date: 2026-07-20 10:02:13.291586

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "b9e1d4583f7a"
down_revision: Union[str, Sequence[str], None] = "3a6f07e2c9d8"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: backfill-in-one-transaction items of deleted users are few, and found beside the
    #   traffic
    # -- reviewed: values-changed whom such an item points to is gone for good; the id tells nobody
    #   anything
    op.execute(
        """
        UPDATE items
        SET created_by_id = NULL
        WHERE created_by_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM users WHERE users.id = items.created_by_id)
        """
    )
    op.execute("ALTER TABLE items VALIDATE CONSTRAINT fk_items_created_by_id_users")


def downgrade() -> None:
    """Downgrade schema."""
    # A constraint cannot be made invalid, only be made anew.
    op.drop_constraint(op.f("fk_items_created_by_id_users"), "items", type_="foreignkey")
    op.create_foreign_key(
        op.f("fk_items_created_by_id_users"),
        "items",
        "users",
        ["created_by_id"],
        ["id"],
        ondelete="SET NULL",
        postgresql_not_valid=True,
    )
