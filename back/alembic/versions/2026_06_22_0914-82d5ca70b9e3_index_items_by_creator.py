"""Index items by creator

For the foreign key that comes next: without it, deleting a user reads all items.

Revision ID: 82d5ca70b9e3
Revises: 4e8b19f6d2c0
Create Date: 2026-06-22 09:14:26.837051

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "82d5ca70b9e3"
down_revision: Union[str, Sequence[str], None] = "4e8b19f6d2c0"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    with op.get_context().autocommit_block():
        op.create_index(
            op.f("ix_items_created_by_id"),
            "items",
            ["created_by_id"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Downgrade schema."""
    with op.get_context().autocommit_block():
        op.drop_index(
            op.f("ix_items_created_by_id"),
            table_name="items",
            postgresql_concurrently=True,
            if_exists=True,
        )
