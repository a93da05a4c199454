"""Drop full names of users

Renaming full_name, step three of three. Nothing is lost: display_name holds what people see.

Revision ID: d7f03c41e8b5
Revises: 9ba2586ef41d
Create Date: 2026-05-25 16:20:44.510763

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "d7f03c41e8b5"
down_revision: Union[str, Sequence[str], None] = "9ba2586ef41d"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: ban-drop-column no server since step two, two weeks ago, reads or writes
    #   full_name
    op.drop_column("users", "full_name")


def downgrade() -> None:
    """Downgrade schema."""
    users = sa.table("users", sa.column("full_name"), sa.column("display_name"))
    op.add_column("users", sa.Column("full_name", sa.Text(), nullable=True))
    # -- reviewed: scan-while-locked users are a few thousand: requests wait for less than
    #   lock_timeout
    op.execute(users.update().values(full_name=users.c.display_name))
