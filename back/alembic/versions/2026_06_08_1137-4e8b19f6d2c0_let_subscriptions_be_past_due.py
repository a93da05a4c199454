"""Let subscriptions be past due

Revision ID: 4e8b19f6d2c0
Revises: d7f03c41e8b5
Create Date: 2026-06-08 11:37:02.158394

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "4e8b19f6d2c0"
down_revision: Union[str, Sequence[str], None] = "d7f03c41e8b5"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # A transaction must not use a label it added itself, and later revisions may share this one.
    with op.get_context().autocommit_block():
        # The label stays if the process dies before the revision is recorded.
        op.execute(
            "ALTER TYPE subscription_status ADD VALUE IF NOT EXISTS 'past_due' AFTER 'active'"
        )


def downgrade() -> None:
    """Downgrade schema."""
    # A label cannot be taken from a type, so the type is made anew. To the servers of before, who
    # know no grace period, a subscription that is past due is an active one.
    # -- reviewed: changing-column-type subscriptions are a few hundred, and taking this back waits
    #   for a quiet hour
    op.execute("ALTER TYPE subscription_status RENAME TO subscription_status_old")
    op.execute("CREATE TYPE subscription_status AS ENUM ('trialing', 'active', 'canceled')")
    op.alter_column("subscriptions", "status", server_default=None)
    op.execute(
        """
        ALTER TABLE subscriptions
        ALTER COLUMN status TYPE subscription_status
        USING replace(status::text, 'past_due', 'active')::subscription_status
        """
    )
    op.alter_column("subscriptions", "status", server_default="trialing")
    op.execute("DROP TYPE subscription_status_old")
