"""Privileges that are taken back: the server then has its defaults written out, where nothing was before."""

from alembic import op

revision = "privileges"
down_revision = "shop"


def upgrade() -> None:
    # -- reviewed: privilege-revoked the application calls it as its owner
    op.execute("GRANT SELECT ON orders TO PUBLIC")
    op.execute("REVOKE ALL ON FUNCTION order_total(bigint) FROM PUBLIC")
    op.execute("REVOKE USAGE ON TYPE order_state FROM PUBLIC")
    op.execute("GRANT USAGE ON SEQUENCE ticket_numbers TO PUBLIC")


def downgrade() -> None:
    op.execute("REVOKE USAGE ON SEQUENCE ticket_numbers FROM PUBLIC")
    op.execute("GRANT USAGE ON TYPE order_state TO PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION order_total(bigint) TO PUBLIC")
    op.execute("REVOKE SELECT ON orders FROM PUBLIC")
