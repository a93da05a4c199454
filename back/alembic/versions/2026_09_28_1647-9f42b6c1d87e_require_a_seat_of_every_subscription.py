"""Require a seat of every subscription

An update in the support console once left a customer with none. Subscriptions are few enough to be
read with the table locked.

Revision ID: 9f42b6c1d87e
Revises: c05a8e7d42f9
Create Date: 2026-09-28 16:47:31.904725

"""

from typing import Sequence, Union

from alembic import op

# revision identifiers, used by Alembic.
revision: str = "9f42b6c1d87e"
down_revision: Union[str, Sequence[str], None] = "c05a8e7d42f9"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: constraint-missing-not-valid subscriptions are few enough to be read with the
    #   table locked
    # -- reviewed: backfill-in-one-transaction it is one subscription, as far as support knows
    # -- reviewed: values-changed no seats was the mistake that this mends
    op.execute("UPDATE subscriptions SET seats = 1 WHERE seats < 1")
    op.create_check_constraint(
        op.f("ck_subscriptions_seats_positive"), "subscriptions", "seats >= 1"
    )


def downgrade() -> None:
    """Downgrade schema."""
    op.drop_constraint(op.f("ck_subscriptions_seats_positive"), "subscriptions", type_="check")
