"""Index items by organization and age

Built concurrently, because items is written all day. Such a build cannot run in a transaction, so
it stands in a revision of its own, where no other half can be left behind, and IF NOT EXISTS lets
the revision run again when it was interrupted between the build and the version table.

Revision ID: a1f7469c0e5b
Revises: 5d80c2e7a61f
Create Date: 2026-01-26 08:58:36.274815

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "a1f7469c0e5b"
down_revision: Union[str, Sequence[str], None] = "5d80c2e7a61f"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    with op.get_context().autocommit_block():
        op.create_index(
            op.f("ix_items_organization_id_created_at"),
            "items",
            ["organization_id", "created_at"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Downgrade schema."""
    with op.get_context().autocommit_block():
        op.drop_index(
            op.f("ix_items_organization_id_created_at"),
            table_name="items",
            postgresql_concurrently=True,
            if_exists=True,
        )
