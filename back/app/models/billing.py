"""The subscriptions of organizations."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, Identified, OrganizationId, Updated, native_enum

if TYPE_CHECKING:
    from app.models.organizations import Organization


class SubscriptionStatus(str, enum.Enum):
    """The status of a subscription, in the usual order."""

    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELED = "canceled"


class Subscription(Identified, Updated, Base):
    """A plan with its seats, from the day it began to the day it ended."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("seats >= 1", name="seats_positive"),
        # Ended subscriptions stay as history; only one may run.
        Index(
            "ix_subscriptions_running",
            "organization_id",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    organization_id: Mapped[OrganizationId]
    plan: Mapped[str]
    status: Mapped[SubscriptionStatus] = mapped_column(
        native_enum(SubscriptionStatus, "subscription_status"),
        server_default=SubscriptionStatus.TRIALING.value,
    )
    seats: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    ended_at: Mapped[datetime | None]

    organization: Mapped[Organization] = relationship(back_populates="subscriptions")
