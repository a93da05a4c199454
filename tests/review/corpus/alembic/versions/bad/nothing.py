"""Nothing, so far."""

# expect: upgrade-empty note

revision = "nothing"
down_revision = "shop"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
