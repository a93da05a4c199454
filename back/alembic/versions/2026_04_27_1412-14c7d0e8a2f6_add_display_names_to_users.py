"""Add display names to users

Renaming full_name, step one of three. The servers that come with this write both columns; those of
before go on with the old one.

Revision ID: 14c7d0e8a2f6
Revises: f53ea6d97b10
Create Date: 2026-04-27 14:12:39.982405

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "14c7d0e8a2f6"
down_revision: Union[str, Sequence[str], None] = "f53ea6d97b10"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: scan-while-locked users are a few thousand: requests wait for less than
    #   lock_timeout
    users = sa.table("users", sa.column("full_name"), sa.column("display_name"))
    op.add_column("users", sa.Column("display_name", sa.Text(), nullable=True))
    op.execute(users.update().values(display_name=users.c.full_name))


def downgrade() -> None:
    """Downgrade schema."""
    # Whoever wrote a display name wrote it to full_name as well.
    op.drop_column("users", "display_name")
