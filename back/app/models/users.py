"""People who sign in."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, Identified, Updated

if TYPE_CHECKING:
    from app.models.access import Membership


class User(Identified, Updated, Base):
    """A person, who may be a member of several organizations."""

    __tablename__ = "users"
    # People write their address in any case, and mean one account.
    __table_args__ = (Index("ix_users_email_lower", text("lower(email)"), unique=True),)

    email: Mapped[str]
    display_name: Mapped[str]
    # None for those who only sign in through their organization's identity provider.
    password_hash: Mapped[str | None]
    email_verified_at: Mapped[datetime | None]
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))

    memberships: Mapped[list[Membership]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )
