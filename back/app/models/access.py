"""The members of an organization, invitations and API keys."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import (
    Base,
    Created,
    FormerUserId,
    Identified,
    OrganizationId,
    UserId,
    native_enum,
)

if TYPE_CHECKING:
    from app.models.organizations import Organization
    from app.models.users import User


class MembershipRole(str, enum.Enum):
    """The rights of a member, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


# One type for both tables: an invitation carries the role its membership will have.
membership_role = native_enum(MembershipRole, "membership_role")


class Membership(Identified, Created, Base):
    """A user's place in an organization."""

    __tablename__ = "memberships"
    # Also the index for looking up an organization's members.
    __table_args__ = (UniqueConstraint("organization_id", "user_id"),)

    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    user_id: Mapped[UserId]
    role: Mapped[MembershipRole] = mapped_column(
        membership_role, server_default=MembershipRole.MEMBER.value
    )

    organization: Mapped[Organization] = relationship(back_populates="memberships")
    user: Mapped[User] = relationship(back_populates="memberships")


class Invitation(Identified, Created, Base):
    """An offer of membership to an address that need not have an account yet."""

    __tablename__ = "invitations"
    __table_args__ = (
        CheckConstraint("expires_at > created_at", name="expires_later"),
        # A second invitation renews the open one; accepted ones are history.
        Index(
            "ix_invitations_open",
            "organization_id",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("accepted_at IS NULL"),
        ),
    )

    organization_id: Mapped[OrganizationId]
    invited_by_id: Mapped[FormerUserId]
    email: Mapped[str]
    role: Mapped[MembershipRole] = mapped_column(
        membership_role, server_default=MembershipRole.MEMBER.value
    )
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]


class ApiKey(Identified, Created, Base):
    """A program's access to one organization; the key itself is shown once and never stored."""

    __tablename__ = "api_keys"

    organization_id: Mapped[OrganizationId]
    created_by_id: Mapped[FormerUserId]
    name: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
