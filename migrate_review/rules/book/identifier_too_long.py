"""The rule ``identifier-too-long``. `compatibility.squawk_remarks` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="identifier-too-long",
    severity=Severity.WARNING,
    theme=Theme.KEYS,
    hazard="PostgreSQL truncates the name to 63 bytes, so autogenerate does not find it again.",
    fix="# Use a name of at most 63 bytes.",
    known_to_squawk=True,
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    op.execute("CREATE TABLE codes (id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_codes PRIMARY KEY, code text)")
    op.execute("CREATE INDEX ix_codes_code_for_those_who_come_from_far_away_and_need_it_in_a_hurry ON codes (code)")
""",
    good="""\
def upgrade() -> None:
    op.execute("CREATE TABLE codes (id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_codes PRIMARY KEY, code text)")
    op.execute("CREATE INDEX ix_codes_code ON codes (code)")
""",
)
