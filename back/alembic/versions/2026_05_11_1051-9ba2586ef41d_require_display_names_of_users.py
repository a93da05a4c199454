"""Require display names of users

Renaming full_name, step two of three. The servers that come with this neither read nor write the
old column any more, so it must not be required.

Revision ID: 9ba2586ef41d
Revises: 14c7d0e8a2f6
Create Date: 2026-05-11 10:51:17.644238

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "9ba2586ef41d"
down_revision: Union[str, Sequence[str], None] = "14c7d0e8a2f6"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: adding-not-nullable-field users are a few thousand: requests wait for less than
    #   lock_timeout
    # -- reviewed: backfill-in-one-transaction only those few who signed up while step one was
    #   rolled out are written
    users = sa.table("users", sa.column("full_name"), sa.column("display_name"))
    # Users who signed up at a server of before while step one was rolled out.
    op.execute(
        users.update().values(display_name=users.c.full_name).where(users.c.display_name.is_(None))
    )
    op.alter_column("users", "display_name", existing_type=sa.Text(), nullable=False)
    op.alter_column("users", "full_name", existing_type=sa.Text(), nullable=True)


def downgrade() -> None:
    """Downgrade schema."""
    users = sa.table("users", sa.column("full_name"), sa.column("display_name"))
    # Only the display name has followed the changes since.
    op.execute(
        users.update()
        .values(full_name=users.c.display_name)
        .where(users.c.full_name.is_distinct_from(users.c.display_name))
    )
    op.alter_column("users", "full_name", existing_type=sa.Text(), nullable=False)
    op.alter_column("users", "display_name", existing_type=sa.Text(), nullable=True)
