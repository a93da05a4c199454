"""The rule ``downgrade-depends-on-data``. `downgrade.downgrade_on_data` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="downgrade-depends-on-data",
    severity=Severity.WARNING,
    theme=Theme.DOWNGRADE,
    hazard="The downgrade fails if rows have values that only the new schema allows: {failure}",
    fix="# In downgrade(), first change or delete the rows that only the new schema allows.",
    measured="A second downgrade, with one row for each new label, longer or larger value, NULL and duplicate that the"
    " new schema allows.",
    bad="""\
def upgrade() -> None:
    op.alter_column("items", "quantity", type_=sa.BigInteger())


def downgrade() -> None:
    op.alter_column("items", "quantity", type_=sa.Integer())
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE parcels DROP CONSTRAINT ck_parcels_state")
    op.execute(
        "ALTER TABLE parcels ADD CONSTRAINT ck_parcels_state CHECK (state IN ('packed', 'sent', 'lost')) NOT VALID"
    )


def downgrade() -> None:
    op.execute("UPDATE parcels SET state = 'sent' WHERE state = 'lost'")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE parcels DROP CONSTRAINT ck_parcels_state")
        op.execute("ALTER TABLE parcels ADD CONSTRAINT ck_parcels_state CHECK (state IN ('packed', 'sent')) NOT VALID")
        op.execute("ALTER TABLE parcels VALIDATE CONSTRAINT ck_parcels_state")
""",
)
