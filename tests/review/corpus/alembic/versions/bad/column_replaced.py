"""The phone is another column, with the values of the old one."""

# expect: ban-drop-column warning, scan-while-locked warning

import sqlalchemy as sa
from alembic import op

revision = "column_replaced"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE customers ADD COLUMN IF NOT EXISTS phone_new text")
        while (
            op.get_bind()
            .execute(
                sa.text(
                    "UPDATE customers SET phone_new = phone WHERE id IN"
                    " (SELECT id FROM customers WHERE phone_new IS DISTINCT FROM phone LIMIT 100)"
                )
            )
            .rowcount
        ):
            pass
    op.drop_column("customers", "phone")
    op.alter_column("customers", "phone_new", new_column_name="phone")


def downgrade() -> None:
    op.add_column("customers", sa.Column("phone_old", sa.String(50)))
    op.execute("UPDATE customers SET phone_old = phone")
    op.drop_column("customers", "phone")
    op.alter_column("customers", "phone_old", new_column_name="phone")
