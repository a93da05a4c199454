"""Add settings to users

The constant default is kept with the table, not written to its rows: this takes no longer for many
users than for few.

Revision ID: f53ea6d97b10
Revises: 61b0f92c8d4e
Create Date: 2026-04-13 09:30:08.365927

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision: str = "f53ea6d97b10"
down_revision: Union[str, Sequence[str], None] = "61b0f92c8d4e"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    op.add_column(
        "users",
        sa.Column(
            "settings",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_column("users", "settings")
