"""Group notification settings by channel

{"email_notifications": true} becomes {"notifications": {"email": true}}, and the same for push.
What else there is in the settings or in their new group is left alone, either way.

Revision ID: e2704d9a6cb1
Revises: 70c5e2b8f19d
Create Date: 2026-08-17 09:41:35.728460

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "e2704d9a6cb1"
down_revision: Union[str, Sequence[str], None] = "70c5e2b8f19d"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None

CHANNELS = ("email", "push")


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: backfill-in-one-transaction users are a few thousand, and few of them have
    #   changed a setting
    for channel in CHANNELS:
        op.execute(
            f"""
            UPDATE users
            SET settings = settings - '{channel}_notifications' || jsonb_build_object(
                'notifications',
                coalesce(settings -> 'notifications', '{{}}')
                || jsonb_build_object('{channel}', settings -> '{channel}_notifications')
            )
            WHERE settings ? '{channel}_notifications'
            """
        )


def downgrade() -> None:
    """Downgrade schema."""
    for channel in CHANNELS:
        op.execute(
            f"""
            UPDATE users
            SET settings = settings #- '{{notifications,{channel}}}' || jsonb_build_object(
                '{channel}_notifications', settings #> '{{notifications,{channel}}}'
            )
            WHERE settings -> 'notifications' ? '{channel}'
            """
        )
    op.execute(
        """
        UPDATE users
        SET settings = settings - 'notifications'
        WHERE settings -> 'notifications' = '{}'
        """
    )
