"""The record of who did what."""

from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Created, FormerUserId, Identified


class AuditEvent(Identified, Created, Base):
    """One action in an organization. It outlives the account of the person who did it."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "organization_id", "created_at"),)

    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    actor_id: Mapped[FormerUserId]
    action: Mapped[str]
    # Each action has its own details, which only people read.
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    ip_address: Mapped[str | None] = mapped_column(INET)
