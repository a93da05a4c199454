"""Add due dates and priorities to items

Revision ID: 05e7da3f9b68
Revises: 9f42b6c1d87e
Create Date: 2026-10-12 10:33:48.167509

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "05e7da3f9b68"
down_revision: Union[str, Sequence[str], None] = "9f42b6c1d87e"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    op.add_column("items", sa.Column("due_on", sa.Date(), nullable=True))
    op.add_column(
        "items",
        sa.Column("priority", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
    )


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_column("items", "priority")
    op.drop_column("items", "due_on")
