"""Require slugs of organizations

The second half of NOT NULL. Validating reads the rows beside the traffic, and SET NOT NULL then
takes the constraint's word instead of reading them again.

Revision ID: 296fb8e03a5d
Revises: 7e95c10d6fb2
Create Date: 2026-03-09 10:28:47.593021

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "296fb8e03a5d"
down_revision: Union[str, Sequence[str], None] = "7e95c10d6fb2"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    op.execute("ALTER TABLE organizations VALIDATE CONSTRAINT ck_organizations_slug_not_null")
    op.alter_column("organizations", "slug", existing_type=sa.Text(), nullable=False)
    op.drop_constraint(op.f("ck_organizations_slug_not_null"), "organizations", type_="check")


def downgrade() -> None:
    """Downgrade schema."""
    op.create_check_constraint(
        op.f("ck_organizations_slug_not_null"),
        "organizations",
        "slug IS NOT NULL",
        postgresql_not_valid=True,
    )
    op.alter_column("organizations", "slug", existing_type=sa.Text(), nullable=True)
