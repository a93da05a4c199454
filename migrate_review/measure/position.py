"""Keeps track of the revisions in the review's database, and brings the database to the state before a revision.

It begins with the state that is nearest: the current one, a copy of this review or of an earlier one, or an empty
database.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from migrate_review.driver.process import DiedError
from migrate_review.measure import catalog, needs, server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg2.extensions import connection

    from localcloud.postgres import Database
    from migrate_review.measure.connections import Connections
    from migrate_review.measure.kept import Kept
    from migrate_review.measure.loaded import LoadedTree
    from migrate_review.measure.roles import Roles
    from migrate_review.observation import Catalog

# Copying a database takes some 0.3 s.
_WORTH_KEEPING_S = 0.5


@dataclass
class Position:
    """The state of a review's database. ``applied`` are its revisions, in the order in which they were applied.

    ``begins_with`` are the revisions in the baseline: those of its version table and their ancestors. It is None
    without a baseline. ``blocked`` maps each revision that cannot be applied, even without rows, to the reason.
    ``admin`` is a connection to another database of the server.
    """

    admin: connection
    database: Database
    connections: Connections
    tree: LoadedTree
    progress: Callable[[str], None]
    kept: Kept | None = None
    roles: Roles | None = None
    begins_with: list[str] | None = None
    applied: list[str] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)
    # The revisions in the database when it was saved.
    _saved: list[str] | None = None
    # The name under which to keep the state with rows.
    _filled: str | None = None
    # Whether the database must be created again before it is used.
    _given_up: bool = False

    # --- on the way ---

    def reach(self, wanted: Sequence[str]) -> str | None:
        """Bring the database to a state in which exactly these revisions are applied.

        A revision of another branch may have created an object that this branch creates, or dropped one that it needs.

        Returns:
            The reason why that is impossible, or None.
        """
        given = self.begins_with or []
        if not set(given) <= set(wanted):
            return f"the baseline is at {given[-1]}, which is later than the parent of this revision"
        if self._given_up:
            self.start_over(wanted, with_rows=False)
        elif not set(self.applied) <= set(wanted):
            self.start_over(wanted)
        elif set(self.applied) == set(given) and self._kept_state(wanted) is not None:
            self.start_over(wanted, with_rows=False)
        while missing := [each for each in wanted if each not in self.applied]:
            blocked = next((each for each in missing if each in self.blocked), None)
            if blocked is not None:
                why = self.blocked[blocked].rstrip(".")
                dump = f"pass a dump of one with --baseline FILE ({needs.PG_DUMP}, and the rows of alembic_version)"
                hint = "" if "--" in why else f"; if your databases have already run it, {dump}"
                return f"the earlier revision {blocked} does not run: {why}{hint}"
            had_rows = set(self.applied) != set(given)
            began = time.monotonic()
            one = len(missing) == 1
            self.progress(f"applying {len(missing)} earlier revision{'' if one else 's'}")
            found = self.apply(missing)
            if "failure" in found:
                if had_rows:
                    self._begin()
                else:
                    culprit = missing[min(len(found["applied"]), len(missing) - 1)]
                    text = found["failure"]["text"]
                    self.blocked[culprit] = self.lacking(culprit, text, self.read()) or text
                    self.give_up()
            elif not had_rows and time.monotonic() - began > _WORTH_KEEPING_S:
                self._keep(wanted)
        return None

    def reach_with_rows(self, revision: str, row_count: int) -> str | None:
        """Bring the database to the state before a revision, as `reach` does.

        A copy of an earlier review already has rows. Without such a copy, `keep_rows` makes one.
        """
        ancestors = self.tree.ancestors(revision)
        self._filled = None
        if self.kept is not None and self.applied != ancestors:
            files = [each.path for each in self.tree.revisions.values()]
            self._filled = self.kept.with_rows(f"{revision} {row_count}", files)
        return None if self._begin_with_rows(ancestors) else self.reach(ancestors)

    def _begin_with_rows(self, ancestors: Sequence[str]) -> bool:
        """Restore the state with rows that an earlier review kept. Return whether there is one."""
        if self.kept is None or self._filled is None or not self.kept.has(self._filled):
            return False
        self._recreate(self._filled)
        self.applied = list(ancestors)
        self._filled = None  # it need not be kept again
        return True

    def apply(self, revisions: Sequence[str]) -> dict[str, Any]:
        """Apply revisions. Return those that were ``applied``, and the ``failure`` if one of them failed."""
        try:
            found = self.connections.execute({"do": "apply", "revisions": list(revisions)})
        except DiedError as error:
            began = self.connections.began()
            self.connections.end_process()
            return {"applied": began[:-1], "failure": {"text": str(error)}}
        self.applied.extend(found["applied"])
        return found

    def note_run(self, direction: str, revision: str) -> None:
        """Record that the driver has run one direction of a revision."""
        if direction == "downgrade":
            self.applied.remove(revision)
        else:
            self.applied.append(revision)

    def block(self, revision: str, reason: str) -> None:
        """Record the reason why a revision cannot be applied here."""
        self.blocked[revision] = reason

    def give_up(self) -> None:
        """Create the database again before its next use, because a revision has left it in an unknown state."""
        self._given_up = True
        self.applied = list(self.begins_with or ())

    def start_over(self, wanted: Sequence[str], *, with_rows: bool = True) -> None:
        """Restore a copy that contains the first of the wanted revisions, or create an empty database.

        The copy of this review also has rows. The copy of an earlier review has none.
        """
        if with_rows and self._saved == list(wanted):
            self._recreate(server.saved(self.database.name))
            self.applied = list(wanted)
        elif (kept := self._kept_state(wanted)) is not None:
            count, name = kept
            self._recreate(name)
            self.applied = list(wanted[:count])
        else:
            self._begin()

    def _begin(self) -> None:
        """Create the database in the state before the first revision."""
        if self.begins_with is not None:
            self._recreate(server.baseline(self.database.name))
            self.applied = list(self.begins_with)
            return
        self._recreate()
        self.applied.clear()
        if self.roles is not None:
            # The copy may need the roles, so it is emptied before they are dropped.
            server.recreate(self.admin, server.saved(self.database.name))
            self._saved = None
            self.roles.drop()

    def _recreate(self, template: str = "template0") -> None:
        self.connections.disconnect()
        server.recreate(self.admin, self.database.name, template)
        self.connections.forget()
        self._given_up = False

    # --- copies ---

    def save(self) -> None:
        """Keep a copy of the database as it is, for this review."""
        if self._saved == self.applied:
            return
        self.connections.disconnect()
        server.recreate(self.admin, server.saved(self.database.name), self.database.name)
        self._saved = list(self.applied)
        self.connections.forget()

    def keep_rows(self, took_s: float) -> None:
        """Keep the state with its rows for the next review, because filling takes long."""
        if self.kept is not None and self._filled is not None and took_s > _WORTH_KEEPING_S:
            self.connections.disconnect()
            self.kept.keep_as(self._filled, self.database.name)
            self.connections.forget()

    def _keep(self, wanted: Sequence[str]) -> None:
        """Keep a copy of the state without rows for the next review."""
        if self.kept is not None:
            self.connections.disconnect()
            self.kept.keep(self.tree.files(wanted), self.database.name)
            self.connections.forget()

    def _kept_state(self, wanted: Sequence[str]) -> tuple[int, str] | None:
        """Return the number of these revisions in the copy of an earlier review, and the copy's name."""
        if self.kept is None or not wanted:
            return None
        return self.kept.find(self.tree.files(wanted))

    # --- its content ---

    def read(self) -> Catalog:
        """Return the schema that the database has now."""
        if self._given_up:
            self._begin()
        return catalog.read(self.connections.opened(), self.connections.version_table)

    def lacking(self, revision: str, failure: str, before: Catalog) -> str | None:
        """Return what the server or the database lacks for a failed revision, or None if the revision itself failed."""
        given = self.begins_with or ()
        earlier = (self.tree.revisions[each].source() for each in self.tree.ancestors(revision) if each not in given)
        return needs.lacking(failure, before, earlier)
