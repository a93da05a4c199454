"""Products note a column that they do not have."""

# expect: writes-fail error

from alembic import op

revision = "trigger_function_broken"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO changes (what) VALUES (NEW.title); RETURN NEW; END $$
    """)


def downgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO changes (what) VALUES (TG_TABLE_NAME); RETURN NEW; END $$
    """)
