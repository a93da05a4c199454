"""Organizations: the tenants everything else belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, Identified, Updated

if TYPE_CHECKING:
    from app.models.access import Membership
    from app.models.billing import Subscription
    from app.models.items import Item


class Organization(Identified, Updated, Base):
    """A customer; the slug is its address in the product's URLs."""

    __tablename__ = "organizations"
    __table_args__ = (UniqueConstraint("slug"),)

    name: Mapped[str]
    slug: Mapped[str]

    # The database deletes the children; loading them first would only cost time.
    memberships: Mapped[list[Membership]] = relationship(
        back_populates="organization", cascade="all, delete-orphan", passive_deletes=True
    )
    items: Mapped[list[Item]] = relationship(
        back_populates="organization", cascade="all, delete-orphan", passive_deletes=True
    )
    subscriptions: Mapped[list[Subscription]] = relationship(
        back_populates="organization", cascade="all, delete-orphan", passive_deletes=True
    )


class ArchivedOrganizationPlan(Base):
    """The plan an organization was on when plans moved to subscriptions.

    Nothing reads it but the downgrade that gives `organizations` its old column back. Billing keeps
    it until the 2026 books are closed.
    """

    __tablename__ = "archived_organization_plans"

    organization_id: Mapped[int] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    plan: Mapped[str]
