"""The first address of visitors, as one."""

from alembic import op

revision = "addresses_of_visitors"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE TABLE places (address inet NOT NULL, CONSTRAINT pk_places PRIMARY KEY (address))")
    op.execute("INSERT INTO places SELECT DISTINCT client_ip::inet FROM visitors")


def downgrade() -> None:
    op.drop_table("places")
