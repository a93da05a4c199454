"""Add notifications read index

Concurrently, like every index on a table that is written all day. Notifications already read are
left out, which is nearly all of them.

Revision ID: ad63c8f0e217
Revises: 05e7da3f9b68
Create Date: 2026-11-09 09:25:14.582936

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "ad63c8f0e217"
down_revision: Union[str, Sequence[str], None] = "05e7da3f9b68"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_notifications_unread",
            "notifications",
            ["user_id", "created_at"],
            postgresql_where=sa.text("read_at IS NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Downgrade schema."""
    with op.get_context().autocommit_block():
        op.drop_index(
            "ix_notifications_unread",
            table_name="notifications",
            postgresql_concurrently=True,
            if_exists=True,
        )
