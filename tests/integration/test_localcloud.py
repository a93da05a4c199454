"""The servers that tests and `make migrate` run on behave like the ones they stand in for."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import sqlalchemy

if TYPE_CHECKING:
    from localcloud.postgres import Database


def test_url_and_connect_reach_the_same_database_as_its_owner(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url)
    with engine.connect() as session:
        by_url = session.execute(sqlalchemy.text("SELECT current_database(), current_user")).one()
    engine.dispose()
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT current_database(), current_user")
        assert cursor.fetchone() == tuple(by_url) == (database.name, database.user)
        cursor.execute("CREATE TABLE mine (id int)")
