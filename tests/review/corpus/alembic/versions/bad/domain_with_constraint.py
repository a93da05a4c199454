"""A type with an opinion."""

# expect: ban-create-domain-with-constraint note

from alembic import op

revision = "domain_with_constraint"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE DOMAIN code AS text CONSTRAINT ck_code CHECK (value <> '')")


def downgrade() -> None:
    op.execute("DROP DOMAIN code")
