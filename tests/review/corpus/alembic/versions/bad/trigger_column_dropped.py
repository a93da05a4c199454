"""Products lose a column that their trigger still reads."""

# expect: ban-drop-column error, values-lost error, writes-fail error

import sqlalchemy as sa
from alembic import op

revision = "trigger_column_dropped"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO changes (what) VALUES (NEW.weight); RETURN NEW; END $$
    """)
    op.drop_column("products", "weight")


def downgrade() -> None:
    op.add_column("products", sa.Column("weight", sa.Text()))
    op.execute("""
        CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO changes (what) VALUES (TG_TABLE_NAME); RETURN NEW; END $$
    """)
