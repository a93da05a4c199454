"""Items: what customers use the product for."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, FormerUserId, Identified, Updated

if TYPE_CHECKING:
    from app.models.organizations import Organization
    from app.models.users import User


class Item(Identified, Updated, Base):
    """A piece of an organization's work."""

    __tablename__ = "items"
    # An organization's items are listed by age.
    __table_args__ = (Index(None, "organization_id", "created_at"),)

    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    created_by_id: Mapped[FormerUserId]
    name: Mapped[str]
    description: Mapped[str | None]
    due_on: Mapped[date | None]
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))

    organization: Mapped[Organization] = relationship(back_populates="items")
    created_by: Mapped[User | None] = relationship()
