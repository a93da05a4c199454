"""Every model, so that `Base.metadata` is whole for whoever imports this package.

`alembic revision --autogenerate` and `alembic check` compare that metadata with the database; a
model missing here is a table they would propose to drop.
"""

from app.models.access import ApiKey, Invitation, Membership, MembershipRole
from app.models.audit import AuditEvent
from app.models.base import Base
from app.models.billing import Subscription, SubscriptionStatus
from app.models.items import Item
from app.models.notifications import Notification
from app.models.organizations import ArchivedOrganizationPlan, Organization
from app.models.users import User

__all__ = [
    "ApiKey",
    "ArchivedOrganizationPlan",
    "AuditEvent",
    "Base",
    "Invitation",
    "Item",
    "Membership",
    "MembershipRole",
    "Notification",
    "Organization",
    "Subscription",
    "SubscriptionStatus",
    "User",
]
