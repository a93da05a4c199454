"""Make email addresses unique regardless of case

Sign-up has looked for lower(email) from the first day on, but two requests at once could both find
nothing.

Revision ID: e6913b7f4c08
Revises: 8c24fa0b9d13
Create Date: 2025-12-15 16:31:50.127739

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "e6913b7f4c08"
down_revision: Union[str, Sequence[str], None] = "8c24fa0b9d13"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: require-concurrent-index-creation sign-ups may wait for the milliseconds that a
    #   few thousand addresses take
    # -- reviewed: upgrade-depends-on-data should two users share an address, support has to ask
    #   them which account to keep: no SQL can
    op.create_index("ix_users_email_lower", "users", [sa.text("lower(email)")], unique=True)


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_index("ix_users_email_lower", table_name="users")
