"""Tables that cannot grow: settings in one row, and a row for each state."""

from alembic import op

revision = "shop_settings"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE opening (
            id integer CONSTRAINT pk_opening PRIMARY KEY CONSTRAINT ck_opening_id CHECK (id = 1), hour integer NOT NULL
        )
    """)
    op.execute("""
        CREATE TABLE shown_states (
            state order_state CONSTRAINT pk_shown_states PRIMARY KEY, label text NOT NULL DEFAULT ''
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE shown_states")
    op.execute("DROP TABLE opening")
