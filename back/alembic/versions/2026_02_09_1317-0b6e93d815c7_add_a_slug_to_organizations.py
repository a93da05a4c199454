"""Add a slug to organizations

Optional for now: the servers running while this is applied know nothing of slugs. Those that come
with it give one to every new organization.

Revision ID: 0b6e93d815c7
Revises: a1f7469c0e5b
Create Date: 2026-02-09 13:17:09.831664

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "0b6e93d815c7"
down_revision: Union[str, Sequence[str], None] = "a1f7469c0e5b"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    op.add_column("organizations", sa.Column("slug", sa.Text(), nullable=True))


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_column("organizations", "slug")
