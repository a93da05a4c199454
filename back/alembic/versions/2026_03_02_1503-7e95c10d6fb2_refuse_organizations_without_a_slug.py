"""Refuse organizations without a slug

The first half of NOT NULL. As a constraint that is not validated it needs no look at the rows,
while SET NOT NULL alone would read them all with the table locked.

Revision ID: 7e95c10d6fb2
Revises: d42a7f18b3e0
Create Date: 2026-03-02 15:03:21.447590

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "7e95c10d6fb2"
down_revision: Union[str, Sequence[str], None] = "d42a7f18b3e0"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    op.create_check_constraint(
        op.f("ck_organizations_slug_not_null"),
        "organizations",
        "slug IS NOT NULL",
        postgresql_not_valid=True,
    )


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_constraint(op.f("ck_organizations_slug_not_null"), "organizations", type_="check")
