"""Record when an email address was verified

Revision ID: 8c24fa0b9d13
Revises: b07d5e61f2a9
Create Date: 2025-12-01 10:05:27.660481

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "8c24fa0b9d13"
down_revision: Union[str, Sequence[str], None] = "b07d5e61f2a9"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    op.add_column(
        "users", sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True)
    )


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_column("users", "email_verified_at")
