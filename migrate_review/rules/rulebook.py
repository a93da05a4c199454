"""Defines every rule: its severity, what happens in production, and the safer way as Alembic code.

A rule that squawk has, too, bears squawk's name. ``{names}`` in braces are filled in with what was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from migrate_review.rules.findings import Finding, Severity

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


class Theme(str, Enum):
    """The topic of a rule, in the order of docs/review.md."""

    LOCKS = "Locks, rewrites and scans"
    COMPATIBILITY = "The application that is running meanwhile"
    DOWNGRADE = "Downgrade and data"
    KEYS = "Keys, indexes, names and types"
    GRAPH = "The revisions and their history"


@dataclass(frozen=True)
class Rule:
    """A rule, with the texts of its findings.

    ``known_to_squawk`` says that squawk has a rule of this name; what it says is then held against what was measured.
    """

    name: str
    severity: Severity
    theme: Theme
    hazard: str
    fix: str
    known_to_squawk: bool = False


_LOCKS = (
    Rule(
        "require-concurrent-index-creation",
        ERROR,
        Theme.LOCKS,
        "Every write to {table} waits until the index {name} is built, which takes longer the larger the table is.",
        """\
with op.get_context().autocommit_block():
    op.create_index(
        "{name}", "{table}", [{columns}], unique={unique},
        postgresql_concurrently=True, if_not_exists=True,
    )""",
        known_to_squawk=True,
    ),
    Rule(
        "require-concurrent-index-deletion",
        NOTE,
        Theme.LOCKS,
        "Dropping the index {name} waits for every query on {table} that runs, and what comes after waits behind it.",
        """\
with op.get_context().autocommit_block():
    op.drop_index("{name}", table_name="{table}", postgresql_concurrently=True, if_exists=True)""",
        known_to_squawk=True,
    ),
    Rule(
        "require-concurrent-reindex",
        ERROR,
        Theme.LOCKS,
        "Every write to {table} waits until its index is built anew.",
        """\
with op.get_context().autocommit_block():
    op.execute("REINDEX TABLE CONCURRENTLY {table}")""",
        known_to_squawk=True,
    ),
    Rule(
        "adding-foreign-key-constraint",
        ERROR,
        Theme.LOCKS,
        "Every write to {table} and to {other} waits while each row of {table} is looked up in {other}.",
        """\
# this revision:
op.create_foreign_key(
    "{name}", "{table}", "{other}", [{columns}], [...], postgresql_not_valid=True
)
# the next revision:
op.execute("ALTER TABLE {table} VALIDATE CONSTRAINT {name}")""",
        known_to_squawk=True,
    ),
    Rule(
        "constraint-missing-not-valid",
        ERROR,
        Theme.LOCKS,
        "Others wait for {table} while all its rows are checked against {name}.",
        """\
# this revision:
op.create_check_constraint("{name}", "{table}", "...", postgresql_not_valid=True)
# the next revision:
op.execute("ALTER TABLE {table} VALIDATE CONSTRAINT {name}")""",
        known_to_squawk=True,
    ),
    Rule(
        "disallowed-unique-constraint",
        ERROR,
        Theme.LOCKS,
        "Every read and write of {table} waits while the index of {name} is built.",
        """\
with op.get_context().autocommit_block():
    op.create_index(
        "{name}", "{table}", [{columns}], unique=True,
        postgresql_concurrently=True, if_not_exists=True,
    )
op.execute("ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")""",
        known_to_squawk=True,
    ),
    Rule(
        "adding-serial-primary-key-field",
        ERROR,
        Theme.LOCKS,
        "Every read and write of {table} waits while its rows are numbered or the index of the primary key is built.",
        """\
# 1. a nullable bigint column, filled in batches; a check (... IS NOT NULL) NOT VALID, validated
# 2. then:
with op.get_context().autocommit_block():
    op.create_index(
        "{name}", "{table}", [{columns}], unique=True,
        postgresql_concurrently=True, if_not_exists=True,
    )
op.execute("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}")""",
        known_to_squawk=True,
    ),
    Rule(
        "adding-not-nullable-field",
        ERROR,
        Theme.LOCKS,
        "Every read and write of {table} waits while all its rows are read for a NULL in {column}.",
        """\
# this revision:
op.create_check_constraint(
    "ck_{table}_{column}_not_null", "{table}", "{column} IS NOT NULL", postgresql_not_valid=True
)
# the next revision: SET NOT NULL takes the validated constraint's word and reads nothing
op.execute("ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_{column}_not_null")
op.alter_column("{table}", "{column}", nullable=False)
op.drop_constraint("ck_{table}_{column}_not_null", "{table}")""",
        known_to_squawk=True,
    ),
    Rule(
        "adding-field-with-default",
        ERROR,
        Theme.LOCKS,
        "Every read and write of {table} waits while a value of {column} is computed and written for each row.",
        """\
# this revision: only rows to come get the default
op.add_column("{table}", sa.Column("{column}", ..., nullable=True))
op.alter_column("{table}", "{column}", server_default=sa.text("..."))
# the next revision: the rows that are there, in batches, each in a transaction of its own""",
        known_to_squawk=True,
    ),
    Rule(
        "changing-column-type",
        ERROR,
        Theme.LOCKS,
        "Every read and write of {table} waits while {column} becomes {new} instead of {old} in every row.",
        """\
# 1. a second column; the application writes both
op.add_column("{table}", sa.Column("{column}_new", ..., nullable=True))  # {new}
# 2. copy in batches, each in a transaction of its own
# 3. the application reads {column}_new; a later revision drops {column}""",
        known_to_squawk=True,
    ),
    Rule(
        "ban-alter-domain-with-add-constraint",
        ERROR,
        Theme.LOCKS,
        "Every write to {table} waits while all values of the domain are checked.",
        """\
# this revision:
op.execute("ALTER DOMAIN ... ADD CONSTRAINT ... CHECK (...) NOT VALID")
# the next revision:
op.execute("ALTER DOMAIN ... VALIDATE CONSTRAINT ...")""",
        known_to_squawk=True,
    ),
    Rule(
        "table-rewrite",
        ERROR,
        Theme.LOCKS,
        "All {blocked} of {table} wait while the whole table is written anew.",
        "# Make a new column or table, fill it in batches, and switch the application over to it.",
    ),
    Rule(
        "scan-while-locked",
        ERROR,
        Theme.LOCKS,
        "All {blocked} of {table} wait while its rows are read: the transaction holds {lock} meanwhile.",
        """\
# Give this statement a revision of its own, after the one that alters {table}:
op.execute({sql!r})""",
    ),
    Rule(
        "backfill-in-one-transaction",
        WARNING,
        Theme.LOCKS,
        "One statement changes {table} as a whole: its rows stay locked until the end, replicas fall behind, and"
        " whatever stops it throws all of it away.",
        """\
from backfill import backfill  # back/backfill.py: along the primary key, each batch in a transaction of its own

backfill("{table}", "UPDATE {table} SET ... WHERE ... AND {{batch}}")""",
    ),
    Rule(
        "prefer-robust-stmts",
        WARNING,
        Theme.LOCKS,
        "The revision commits in between: if it stops after this statement, running it again fails at this statement.",
        """\
# Give what runs in an autocommit block a revision of its own, or let it be run twice:
#   if_not_exists=True, if_exists=True, op.execute("... IF NOT EXISTS ...")""",
        known_to_squawk=True,
    ),
)

_COMPATIBILITY = (
    Rule(
        "ban-drop-column",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application that names {table}.{column} fails from here on; its values are gone.",
        """\
# 1. release an application that does not map the column; meanwhile its inserts must not need it:
op.alter_column("{table}", "{column}", nullable=True)
# 2. then drop it, in a later revision, and say so:
# -- reviewed: ban-drop-column no release since ... reads it
op.drop_column("{table}", "{column}")""",
        known_to_squawk=True,
    ),
    Rule(
        "ban-drop-table",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application on {table} fails from here on, and its rows are gone.",
        """\
# 1. release an application that does not use {table}
# 2. then drop it, in a later revision, and say so:
# -- reviewed: ban-drop-table no release since ... uses it
op.drop_table("{table}")""",
        known_to_squawk=True,
    ),
    Rule(
        "renaming-column",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application that names {table}.{old} fails from here on.",
        """\
# 1. this revision, with an application that writes both columns:
op.add_column("{table}", sa.Column("{new}", ..., nullable=True))  # {type}
# 2. copy in batches; the application reads {new}
# 3. a later revision:
op.drop_column("{table}", "{old}")""",
        known_to_squawk=True,
    ),
    Rule(
        "renaming-table",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application on {old} fails from here on.",
        """\
op.rename_table("{old}", "{new}")
# in the same revision: a view that reads and writes pass through
op.execute("CREATE VIEW {old} AS SELECT * FROM {new}")
# a later revision, when nothing uses it any more:
op.execute("DROP VIEW {old}")""",
        known_to_squawk=True,
    ),
    Rule(
        "renaming-object",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application that uses {old} fails from here on.",
        "# Add {new} beside it; let the application use it; drop {old} in a later revision.",
        known_to_squawk=True,
    ),
    Rule(
        "enum-value-renamed",
        ERROR,
        Theme.COMPATIBILITY,
        "The running application fails when it writes '{old}', and when it reads '{new}'.",
        """\
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE {type} ADD VALUE IF NOT EXISTS '{new}'")
# then let the application write '{new}', and change the rows in batches""",
    ),
    Rule(
        "enum-value-removed",
        ERROR,
        Theme.COMPATIBILITY,
        "The running application fails when it writes '{old}'.",
        "# Stop writing '{old}' and change the rows that have it; leave the label in {type}: it does no harm.",
    ),
    Rule(
        "adding-required-field",
        ERROR,
        Theme.COMPATIBILITY,
        "It fails if {table} has a row, and so does every insert of the running application, which knows no {column}.",
        """\
# with a constant default, which is kept with the table and not written to its rows:
op.add_column("{table}", sa.Column("{column}", ..., server_default="...", nullable=False))
# or nullable now, and required in a later revision""",
        known_to_squawk=True,
    ),
    Rule(
        "ban-drop-default",
        WARNING,
        Theme.COMPATIBILITY,
        "Inserts of the running application that leave {table}.{column} to its default fail: it is required.",
        """\
# Let every release write {column} first; then, in a later revision:
op.alter_column("{table}", "{column}", server_default=None)""",
        known_to_squawk=True,
    ),
    Rule(
        "ban-drop-view",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application on the view {name} fails from here on.",
        "# Release an application that does not use it; then drop it, in a later revision.",
        known_to_squawk=True,
    ),
    Rule(
        "ban-drop-function",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application that calls {name} fails from here on.",
        "# Release an application that does not call it; then drop it, in a later revision.",
        known_to_squawk=True,
    ),
    Rule(
        "ban-drop-sequence",
        WARNING,
        Theme.COMPATIBILITY,
        "Whatever of the running application takes numbers from {name} fails from here on.",
        "# Release an application that does not use it; then drop it, in a later revision.",
        known_to_squawk=True,
    ),
    Rule(
        "ban-set-schema",
        ERROR,
        Theme.COMPATIBILITY,
        "Every query of the running application that expects {old} where it was fails from here on.",
        '# Leave a view in its place, in the same revision:\nop.execute("CREATE VIEW {old} AS SELECT * FROM {new}")',
        known_to_squawk=True,
    ),
    Rule(
        "ban-truncate-cascade",
        ERROR,
        Theme.COMPATIBILITY,
        "It empties every table with a foreign key to this one, too, whatever is in it by then.",
        '# Name each table that is to be emptied:\nop.execute("TRUNCATE a, b")',
        known_to_squawk=True,
    ),
    Rule(
        "ban-drop-database",
        ERROR,
        Theme.COMPATIBILITY,
        "A database is dropped with all that is in it.",
        "# No revision drops a database.",
        known_to_squawk=True,
    ),
)

_DOWNGRADE = (
    Rule(
        "upgrade-fails",
        ERROR,
        Theme.DOWNGRADE,
        "The upgrade fails: {failure}",
        "# Correct the statement that the server refused.",
    ),
    Rule(
        "not-measured",
        WARNING,
        Theme.DOWNGRADE,
        "Nothing is known of what the revision does: one before it fails.",
        "# Correct that one first.",
    ),
    Rule(
        "upgrade-depends-on-data",
        WARNING,
        Theme.DOWNGRADE,
        "The upgrade fails on rows that today's constraints allow: {failure}",
        """\
# Correct such rows first, in a revision before this one:
op.execute("UPDATE ... SET ... WHERE ...")""",
    ),
    Rule(
        "ban-concurrent-index-creation-in-transaction",
        ERROR,
        Theme.DOWNGRADE,
        "The upgrade fails: an index cannot be built or dropped concurrently inside a transaction.",
        """\
with op.get_context().autocommit_block():
    op.create_index(..., postgresql_concurrently=True, if_not_exists=True)""",
        known_to_squawk=True,
    ),
    Rule(
        "transaction-nesting",
        ERROR,
        Theme.DOWNGRADE,
        "The revision ends the transaction that it runs in: if it fails later, the first half stays.",
        """\
# What must run outside a transaction runs in a block of its own:
with op.get_context().autocommit_block():
    op.execute("...")""",
        known_to_squawk=True,
    ),
    Rule(
        "downgrade-missing",
        ERROR,
        Theme.DOWNGRADE,
        "The revision cannot be taken back: it has no downgrade().",
        "def downgrade() -> None:\n    ...  # the opposite of upgrade(), last step first",
    ),
    Rule(
        "downgrade-empty",
        ERROR,
        Theme.DOWNGRADE,
        "downgrade() does nothing, so the database then counts as at the revision before and is not.",
        "def downgrade() -> None:\n{undo}",
    ),
    Rule(
        "downgrade-fails",
        ERROR,
        Theme.DOWNGRADE,
        "The revision cannot be taken back: {failure}",
        "# Correct downgrade(); if there is no way back, say so:\n# -- reviewed: downgrade-fails ...",
    ),
    Rule(
        "downgrade-incomplete",
        ERROR,
        Theme.DOWNGRADE,
        "After the downgrade the schema is not what it was, so the application of before meets another one.",
        "def downgrade() -> None:\n    # as well as what it does now:\n{undo}",
    ),
    Rule(
        "upgrade-not-repeatable",
        ERROR,
        Theme.DOWNGRADE,
        "After a downgrade the upgrade does not work again: {failure}",
        "def downgrade() -> None:\n    # as well as what it does now:\n{undo}",
    ),
    Rule(
        "rows-lost",
        ERROR,
        Theme.DOWNGRADE,
        "Rows of {table} are gone for good: the downgrade does not bring them back.",
        """\
# keep them where the downgrade finds them, as in:
op.execute("CREATE TABLE archived_{table} AS SELECT * FROM {table}")  # WHERE ... as in the DELETE
# downgrade:
op.execute("INSERT INTO {table} SELECT * FROM archived_{table}")""",
    ),
    Rule(
        "values-lost",
        ERROR,
        Theme.DOWNGRADE,
        "The values of {table}.{column} are gone for good: the downgrade does not bring them back.",
        """\
# keep them where the downgrade finds them, as in:
op.execute("CREATE TABLE archived_{table}_{column} AS SELECT id, {column} FROM {table}")
# downgrade, after the column is there again:
op.execute(
    "UPDATE {table} SET {column} = archive.{column} FROM archived_{table}_{column} AS archive"
    " WHERE archive.id = {table}.id"
)""",
    ),
    Rule(
        "values-changed",
        WARNING,
        Theme.DOWNGRADE,
        "Up and down again leaves other values in {table}.{column} than there were.",
        "# Let downgrade() compute the old values, keep them beside the new ones, or say why they are not needed:\n"
        "# -- reviewed: values-changed ...",
    ),
    Rule(
        "rows-left",
        WARNING,
        Theme.DOWNGRADE,
        "Rows that the upgrade added to {table} stay after the downgrade, and the next upgrade adds them again.",
        'def downgrade() -> None:\n    op.execute("DELETE FROM {table} WHERE ...")',
    ),
)

_KEYS = (
    Rule(
        "foreign-key-without-index",
        WARNING,
        Theme.KEYS,
        "Deleting a row of {other}, or changing its key, reads all of {table} to look for rows that point to it.",
        """\
with op.get_context().autocommit_block():
    op.create_index(
        "{index}", "{table}", [{columns}],
        postgresql_concurrently=True, if_not_exists=True,
    )""",
    ),
    Rule(
        "duplicate-index",
        WARNING,
        Theme.KEYS,
        "Every write to {table} keeps two indexes up to date that do the same: {name} and {other}.",
        '# Leave out the one that no constraint needs:\nop.drop_index("{name}", table_name="{table}")',
    ),
    Rule(
        "unnamed-constraint",
        NOTE,
        Theme.KEYS,
        "The server chose the name {name}; a later revision can only guess it.",
        "{named}",
    ),
    Rule(
        "identifier-too-long",
        WARNING,
        Theme.KEYS,
        "PostgreSQL cuts the name to 63 bytes, so that autogenerate does not find it again.",
        "# Give it a name of at most 63 bytes.",
        known_to_squawk=True,
    ),
    Rule(
        "table-without-primary-key",
        NOTE,
        Theme.KEYS,
        "Rows of {table} cannot be told apart, by the ORM or by logical replication.",
        'op.create_table("{table}", ..., sa.PrimaryKeyConstraint("id", name="pk_{table}"))',
    ),
    Rule(
        "prefer-bigint-over-int",
        NOTE,
        Theme.KEYS,
        "{table}.{column} numbers rows with 32 bits: inserts fail after 2,147,483,647, and changing it later rewrites"
        " the table.",
        'sa.Column("{column}", sa.BigInteger(), sa.Identity(), nullable=False)',
        known_to_squawk=True,
    ),
    Rule(
        "prefer-timestamp-tz",
        NOTE,
        Theme.KEYS,
        "{table}.{column} forgets the time zone of what is written to it.",
        'sa.Column("{column}", sa.DateTime(timezone=True))',
        known_to_squawk=True,
    ),
    Rule(
        "ban-char-field",
        NOTE,
        Theme.KEYS,
        "{table}.{column} pads what is written to it with blanks.",
        'sa.Column("{column}", sa.Text())',
        known_to_squawk=True,
    ),
    Rule(
        "ban-create-domain-with-constraint",
        NOTE,
        Theme.KEYS,
        "Changing the domain's constraint later checks all tables that use it, with their writes waiting.",
        '# Give the column a check constraint of its own:\nop.create_check_constraint("ck_...", "...", "...")',
        known_to_squawk=True,
    ),
)

_GRAPH = (
    Rule(
        "does-not-load",
        ERROR,
        Theme.GRAPH,
        "Alembic cannot load the revision, so that nothing can be migrated: {failure}",
        "# Correct the file: python {path}",
    ),
    Rule(
        "imports-application",
        WARNING,
        Theme.GRAPH,
        "The revision imports {module}: when that changes later, the revision does something else or fails.",
        """\
# Write down what the revision needs of it, as it is today:
users = sa.table("users", sa.column("id"), sa.column("name"))""",
    ),
    Rule(
        "upgrade-empty",
        NOTE,
        Theme.GRAPH,
        "The revision does nothing.",
        "# Remove the file, unless something is to come.",
    ),
    Rule(
        "several-heads",
        ERROR,
        Theme.GRAPH,
        "`upgrade head` fails: the tree has several heads, {heads}.",
        'alembic merge -m "Merge heads" {heads_spaced}',
    ),
    Rule(
        "parent-missing",
        ERROR,
        Theme.GRAPH,
        "Alembic cannot load the tree: {parent}, which the revision builds on, is not in it.",
        "# Add that revision's file, or correct down_revision.",
    ),
    Rule(
        "parent-not-head",
        ERROR,
        Theme.GRAPH,
        "{parent}, which the revision builds on, is not the head of {ref}, which is {heads}: merged, there are two.",
        'down_revision = "{heads}"  # after taking up {ref}: git rebase {ref}',
    ),
    Rule(
        "edited-after-release",
        ERROR,
        Theme.GRAPH,
        "The revision is on {ref} already: databases that have run it will never run the change.",
        "git checkout {ref} -- {path}\n# and put the change into a new revision",
    ),
    Rule(
        "deleted-after-release",
        ERROR,
        Theme.GRAPH,
        "The revision is on {ref}: a database that is at it cannot be migrated any more.",
        "git checkout {ref} -- {path}",
    ),
    Rule(
        "edited-after-review",
        ERROR,
        Theme.GRAPH,
        "The revision is not the one that was reviewed.",
        "# Undo the change, or have it reviewed again:\nmigrate review {revision} --record",
    ),
    Rule(
        "models-differ",
        ERROR,
        Theme.GRAPH,
        "The application expects another schema than the revisions make: {difference}",
        'alembic revision --autogenerate -m "..."',
    ),
    Rule(
        "acknowledgement-without-reason",
        WARNING,
        Theme.GRAPH,
        "A reader cannot tell why {rule} is no trouble here, so it does not count.",
        "# -- reviewed: {rule} <why this is no trouble here>",
    ),
    Rule(
        "unused-acknowledgement",
        NOTE,
        Theme.GRAPH,
        "The revision acknowledges {rule}, which was not found.",
        "# Remove the comment.",
    ),
)

RULES = {rule.name: rule for rule in (*_LOCKS, *_COMPATIBILITY, *_DOWNGRADE, *_KEYS, *_GRAPH)}


def finding(rule: str, revision: str, evidence: str, /, **names: str) -> Finding:
    """Return a finding on a revision. ``names`` fill the placeholders in the rule's texts."""
    known = RULES[rule]
    return Finding(
        revision=revision,
        rule=rule,
        severity=known.severity,
        message=known.hazard.format(**names),
        evidence=evidence,
        fix=known.fix.format(revision=revision, **names),
    )
