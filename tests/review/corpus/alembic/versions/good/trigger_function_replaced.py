"""Products note their name."""

from alembic import op

revision = "trigger_function_replaced"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO changes (what) VALUES (NEW.name); RETURN NEW; END $$
    """)


def downgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO changes (what) VALUES (TG_TABLE_NAME); RETURN NEW; END $$
    """)
