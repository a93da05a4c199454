"""Make creators of items a foreign key

Not validated yet: that would hold up every write to items and users while all items are read. From
here on, no item can get a creator who does not exist.

Revision ID: 3a6f07e2c9d8
Revises: 82d5ca70b9e3
Create Date: 2026-07-06 13:55:58.402617

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "3a6f07e2c9d8"
down_revision: Union[str, Sequence[str], None] = "82d5ca70b9e3"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    op.create_foreign_key(
        op.f("fk_items_created_by_id_users"),
        "items",
        "users",
        ["created_by_id"],
        ["id"],
        ondelete="SET NULL",
        postgresql_not_valid=True,
    )


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_constraint(op.f("fk_items_created_by_id_users"), "items", type_="foreignkey")
