"""Archive the plans of organizations

Subscriptions have held the plans since March, and no server reads this column any more. Its values
move to an archive, for the downgrade to bring back and for billing to look up.

Revision ID: c05a8e7d42f9
Revises: 1d9f6b3e70a4
Create Date: 2026-09-14 11:19:05.346278

"""

from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = "c05a8e7d42f9"
down_revision: Union[str, Sequence[str], None] = "1d9f6b3e70a4"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    # -- reviewed: ban-drop-column no server has read or written plan since subscriptions hold the
    #   plans, in March
    # -- reviewed: scan-while-locked organizations are a few hundred
    op.create_table(
        "archived_organization_plans",
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_archived_organization_plans_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_archived_organization_plans")),
    )
    op.execute("INSERT INTO archived_organization_plans SELECT id, plan FROM organizations")
    op.drop_column("organizations", "plan")


def downgrade() -> None:
    """Downgrade schema."""
    op.add_column(
        "organizations", sa.Column("plan", sa.Text(), server_default="free", nullable=False)
    )
    # Organizations that came later have no archived plan, and keep the default.
    op.execute(
        """
        UPDATE organizations
        SET plan = archive.plan
        FROM archived_organization_plans AS archive
        WHERE archive.organization_id = organizations.id
        """
    )
    op.drop_table("archived_organization_plans")
