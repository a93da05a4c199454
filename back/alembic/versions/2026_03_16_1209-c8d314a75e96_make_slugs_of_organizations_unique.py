"""Make slugs of organizations unique

Revision ID: c8d314a75e96
Revises: 296fb8e03a5d
Create Date: 2026-03-16 12:09:30.208843

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "c8d314a75e96"
down_revision: Union[str, Sequence[str], None] = "296fb8e03a5d"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: disallowed-unique-constraint organizations are a few hundred: the index is built
    #   in milliseconds
    op.create_unique_constraint(op.f("uq_organizations_slug"), "organizations", ["slug"])


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_constraint(op.f("uq_organizations_slug"), "organizations", type_="unique")
