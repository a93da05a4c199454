"""The rule ``ban-create-domain-with-constraint``. `compatibility.squawk_remarks` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-create-domain-with-constraint",
    severity=Severity.NOTE,
    theme=Theme.KEYS,
    hazard="A later change of the domain's constraint checks all tables that use it, and blocks writes to them.",
    fix="# Give each column that uses the domain its own check constraint: it can be NOT VALID.",
    known_to_squawk=True,
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    op.execute("CREATE DOMAIN code AS text CONSTRAINT ck_code CHECK (value <> '')")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD CONSTRAINT ck_orders_note CHECK (note <> '') NOT VALID")
""",
)
