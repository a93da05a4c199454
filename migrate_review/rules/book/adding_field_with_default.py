"""The rule ``adding-field-with-default``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="adding-field-with-default",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every read and write of {table} waits while PostgreSQL computes {column} for each row.",
    fix="""\
# this revision: only new rows get the default
op.execute("ALTER TABLE {table} ADD COLUMN {column} {type}")
op.execute("ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {default}")
# the next revision: fill the existing rows in batches, each in its own transaction""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("number", sa.BigInteger(), sa.Identity(), nullable=False))
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("token", sa.Uuid()))
    op.alter_column("orders", "token", server_default=sa.text("gen_random_uuid()"))
""",
)
