"""Shared by all tables: names of constraints, types of columns, identity and timestamps."""

import enum
from datetime import datetime
from typing import Annotated

from sqlalchemy import BigInteger, DateTime, Enum, ForeignKey, Identity, MetaData, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# A constraint can only be dropped by name, so each needs one that every database agrees on.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The declarative base; its metadata is what migrations are compared with."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy declares it so)
        int: BigInteger,
        str: Text,
        datetime: DateTime(timezone=True),
    }


# PostgreSQL does not index the referencing side by itself. Without an index, deleting an
# organization or a user reads every table that refers to it from end to end. A column that already
# leads another index spells its foreign key out instead of using these.
OrganizationId = Annotated[
    int, mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), index=True)
]
UserId = Annotated[int, mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)]
FormerUserId = Annotated[
    int | None, mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
]


class Identified:
    """A surrogate key from the database's own counter."""

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)


class Created:
    """When a row was made, by the database's clock: those of the servers differ."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Updated(Created):
    """When a row was last written through the models."""

    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


def native_enum(members: type[enum.Enum], name: str) -> Enum:
    """Return a PostgreSQL enum whose labels are the members' values.

    SQLAlchemy would use the members' names, which renames the labels when code is tidied.
    """
    return Enum(members, name=name, values_callable=lambda cls: [member.value for member in cls])
