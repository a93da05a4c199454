"""A name that does not fit."""

# expect: identifier-too-long warning

from alembic import op

revision = "name_too_long"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE TABLE codes (id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_codes PRIMARY KEY, code text)")
    op.execute("CREATE INDEX ix_codes_code_for_those_who_come_from_far_away_and_need_it_in_a_hurry ON codes (code)")


def downgrade() -> None:
    op.drop_table("codes")
