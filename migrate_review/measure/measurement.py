"""Measures one revision: up, down and up again, on the schema that it builds on with rows in it.

The rows satisfy the constraints. If the revision fails because of the rows, it is measured with other rows.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psycopg2

from lambda_migrate.database.schema import read_schema
from migrate_review.driver.process import DiedError
from migrate_review.errors import EnvPyError
from migrate_review.measure import absent, access, catalog, scope, shown, wider, zones
from migrate_review.measure.writes import Trial
from migrate_review.observation import REFUSED_ROWS, Execution, Lock, Observation, Statement
from migrate_review.rows import contents, fill
from migrate_review.rows.columns import RevisionTexts
from migrate_review.rows.plan import plan_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from migrate_review.measure.position import Position
    from migrate_review.measure.scope import Scope
    from migrate_review.observation import Catalog, Table
    from migrate_review.rows.plan import Plan

# A check that lists the values of one column: `state = ANY (ARRAY[...])`, `id = 1`.
_LISTS = re.compile(
    r"CHECK \(\((?P<column>\w+|\(\w+\)::text) = (ANY \(\(?ARRAY\[[^\]]*\](::text\[\])?\)?\)|'[^']*'(::\w+)*|-?\d+)\)\)"
)
# Maximum number of places at which a revision is stopped and run again.
_MOST_RERUNS = 6


@dataclass(frozen=True)
class _Rows:
    """The rows to insert: those of a plan, ``count`` rows a table, or if ``sparse`` with NULL wherever allowed."""

    plan: Plan | None = None
    count: int | None = None
    sparse: bool = False


_USUAL = _Rows()


@dataclass
class Measurement:
    """Measures the revisions of a review. With ``record``, it reads the schema's digests, too."""

    position: Position
    row_count: int
    record: bool
    # The tables that each revision touches and does not name.
    _not_named: dict[str, frozenset[str]] = field(default_factory=dict)

    def observe(self, revision: str) -> Observation:
        """Return the measurements of a revision.

        Raises:
            ReviewError: env.py cannot be run at all.
        """
        try:
            return self._measured(revision)
        except psycopg2.Error as error:
            # An event trigger of the revision may refuse the statement, or make it run into the timeout.
            self.position.give_up()
            text = " ".join(str(error).split())
            return self._not_run(revision, f"a statement of the review itself failed with it: {text}")
        except EnvPyError as error:
            if not self.position.tree.ancestors(revision):
                raise
            # env.py ran on the empty database. So a revision has changed something that affects every session.
            self.position.give_up()
            return self._not_run(revision, f"env.py no longer runs after the revisions before this one: {error}")

    def _measured(self, revision: str) -> Observation:
        if revision in (self.position.begins_with or ()):
            return self._not_run(revision, "the baseline already contains it, so it did not run")
        obstacle = self.position.reach_with_rows(revision, self.row_count)
        if obstacle is not None:
            return self._not_run(revision, obstacle)
        observation = self._with_rows_in_touched_tables(revision)
        if self._fails_because_of_rows(revision, observation.upgrade):
            observation = self._with_other_rows(revision, observation)
        failure = observation.upgrade.failure
        if failure is not None:
            lacking = self.position.lacking(revision, failure, observation.before)
            if lacking is not None:
                self.position.block(revision, lacking)
                return self._not_run(revision, lacking)
        if failure is None and observation.after is not None:
            # The upgrade did nothing about objects that IF EXISTS did not find.
            missing = absent.dropped(observation.upgrade.statements, (observation.before, observation.after))
            left_out = (*observation.upgrade.left_out, *missing)
            observation = replace(observation, upgrade=replace(observation.upgrade, left_out=left_out))
        more = (*_without_rows(observation), *(observation.upgrade.left_out if failure is None else ()))
        return replace(observation, unmeasured=(*observation.unmeasured, *more))

    def _not_run(self, revision: str, reason: str) -> Observation:
        """Return the SQL of a revision that cannot run here, as far as Alembic can render it."""
        before = self.position.read()
        connections = self.position.connections
        try:
            statements = connections.execute({"do": "render", "revision": revision})["statements"]
        except DiedError:
            connections.end_process()
            statements = []
        rendered = Execution(
            tuple(_statement(each) for each in statements),
            failure=reason,
            empty=self.position.tree.revisions[revision].empty["upgrade"],
            rendered=True,
        )
        return Observation(revision, {}, {}, before, rendered, unmeasured=(reason,))

    # --- with which rows ---

    def _reach(self, revision: str) -> str | None:
        return self.position.reach(self.position.tree.ancestors(revision))

    def _with_rows_in_touched_tables(self, revision: str) -> Observation:
        """Return the measurements with rows in every table that the revision touches."""
        scope = self._scope(revision)
        observation = self._observed(revision)
        if missed := scope.missed(observation):
            self._not_named[revision] = missed
            self.position.start_over(self.position.tree.ancestors(revision))
            if self._reach(revision) is None:
                observation = self._observed(revision)
        return observation

    def _scope(self, revision: str) -> Scope:
        text = self.position.tree.revisions[revision].source()
        return scope.guess(self.position.connections.opened(), text, self._not_named.get(revision, ()))

    def _with_other_rows(self, revision: str, refused: Observation) -> Observation:
        """Return the measurements of a revision that refused rows: with fitting, sparse, single rows, or none."""
        observation = self._with_fitting_rows(revision, refused)
        for rows in (_Rows(sparse=True), _Rows(count=1), _Rows(count=0)):
            if observation.upgrade.failure is None or self._reach(revision) is not None:
                break
            tried = self._observed(revision, rows)
            if tried.upgrade.failure is None:
                observation = replace(tried, refused=refused.upgrade)
                if rows.count == 0:
                    observation = _without_any_rows(observation)
        return observation

    def _fails_because_of_rows(self, revision: str, failed: Execution) -> bool:
        """Return whether an upgrade failed because of the rows: by its error, or because it runs on empty tables."""
        if failed.failure is None or (failed.sqlstate or "").startswith(REFUSED_ROWS):
            return failed.failure is not None
        if not failed.statements or self._reach(revision) is not None:
            return False
        ran = "failure" not in self.position.apply([revision])
        self.position.give_up()
        return ran

    def _with_fitting_rows(self, revision: str, refused: Observation) -> Observation:
        """Return the measurements of a revision that refused rows, with rows that it accepts.

        The schema after it, read after a run on empty tables, shows which rows it accepts.
        """
        obstacle = self._reach(revision)
        before = self.position.read()
        if obstacle is not None or "failure" in self.position.apply([revision]):
            self.position.give_up()
            return refused
        after = self.position.read()
        self.position.give_up()
        if self._reach(revision) is not None:
            return refused
        fitting = self._observed(revision, _Rows(plan_rows(before, after)))
        return replace(fitting, refused=refused.upgrade)

    def _fill(self, revision: str, rows: _Rows) -> dict[str, str]:
        """Fill the tables. Return those that stayed empty, with the reason."""
        position = self.position
        several = position.tree.revisions.values()
        texts = RevisionTexts(
            tuple(each.upgrade_texts for each in several), frozenset().union(*(each.inserted for each in several))
        )
        began = time.monotonic()
        unfilled = fill.fill(
            position.connections.opened(),
            self.row_count if rows.count is None else rows.count,
            position.connections.version_table,
            rows.plan,
            texts,
            self._scope(revision).tables,
            sparse=rows.sparse,
        )
        if rows == _USUAL:
            if not unfilled:
                position.keep_rows(time.monotonic() - began)
            if position.tree.has_siblings(revision):
                position.save()
        return unfilled

    # --- up, down and up again ---

    def _observed(self, revision: str, rows: _Rows = _USUAL) -> Observation:
        # In one function, because each phase needs the results of the earlier ones, and may end the measurement.
        connections = self.position.connections
        unfilled = self._fill(revision, rows)
        opened = connections.opened()
        before = self.position.read()
        data = contents.read(opened, before)
        counts = {name: len(each.rows) for name, each in data.items()} | contents.counts(
            opened,
            [
                *(table.name for table in before.tables if table.name not in data),
                *(view.name for view in before.materialized if view.populated),
            ],
        )
        standing = access.read(opened)
        visible = shown.read(opened, before)
        digests = self._digests()
        seen = Observation(
            revision,
            counts,
            unfilled,
            before,
            self._execute("upgrade", revision, before, counts),
            schema_before=digests,
        )
        if seen.upgrade.failure is not None:
            self.position.give_up()
            return seen
        after = self.position.read()
        seen = replace(
            seen,
            rows=counts | _under_new_names(counts, before, after),
            after=after,
            schema_after=self._digests(),
            access_before=standing,
            access_after=access.read(connections.opened()),
            writes=Trial(connections.opened(), before, after, data, counts).changed_writes(),
            zoned=zones.by_the_session(connections.opened(), before, after),
            shown_before=visible,
            shown_after=shown.read(connections.opened(), after, _replaced(before, after)),
            orphans=shown.orphans(connections.opened(), seen.upgrade.statements),
        )
        counts = dict(seen.rows)
        seen = replace(seen, downgrade=self._execute("downgrade", revision, after, counts))
        if seen.downgrade is None or seen.downgrade.failure is not None:
            self.position.give_up()
            return seen
        restored = self.position.read()
        if seen.writes and not catalog.differences(before, restored):
            # The schema is as before the revision, so effects that still appear are not caused by the revision.
            tables = {write.table for write in seen.writes}
            always = Trial(connections.opened(), after, restored, data, counts).changed_writes(only=tables)
            known = {(write.table, write.kind, write.sqlstate) for write in always}
            changed = (write for write in seen.writes if (write.table, write.kind, write.sqlstate) not in known)
            seen = replace(seen, writes=tuple(changed))
        kept = contents.changes(data, contents.read(connections.opened(), restored))
        seen = replace(seen, restored=restored, changes=kept)
        seen = replace(seen, upgrade_again=self._execute("upgrade", revision, restored, counts))
        if seen.upgrade_again is None or seen.upgrade_again.failure is not None:
            self.position.give_up()
            return seen
        return self._run_again(self._with_values_of_the_new_schema(replace(seen, again=self.position.read())))

    def _digests(self) -> Mapping[str, str] | None:
        if not self.record:
            return None
        connections = self.position.connections
        return read_schema(connections.opened(), version_table=connections.version_table[1]).objects

    def _execute(self, direction: str, revision: str, before: Catalog, counts: Mapping[str, int]) -> Execution:
        empty = self.position.tree.revisions[revision].empty[direction]
        connections = self.position.connections
        tables = {table.oid: table.name for table in before.tables}
        tables |= {view.oid: view.name for view in before.materialized}
        bounded = {table.oid for table in before.tables if _is_bounded(table, before)}
        command = {
            "do": "step",
            "direction": direction,
            "revision": revision,
            "tables": tables,
            # Work on a table that cannot grow takes no longer in production.
            "rows": {oid: 0 if oid in bounded else counts.get(name, 0) for oid, name in tables.items()},
        }
        try:
            found = connections.execute_watching(command, [table.name for table in before.tables])
        except DiedError as error:
            connections.end_process()
            return Execution((), failure=str(error), empty=empty)
        except EnvPyError as error:
            if direction == "upgrade":
                raise
            # env.py ran before the revision. So the revision has changed something that affects every session.
            return Execution((), failure=str(error), empty=empty)
        failure = found["failure"] or {}
        text = failure.get("text")
        if text is None:
            there = revision in connections.versions()
            self.position.note_run(direction, revision)
            if there != (direction == "upgrade"):
                text = "env.py did not commit the revision: the version table is unchanged"
        return Execution(
            statements=tuple(_statement(each) for each in found["statements"]),
            failure=text,
            failed_sql=failure.get("sql"),
            sqlstate=failure.get("sqlstate"),
            empty=empty,
            idle_ms=found["idle_ms"],
            left_out=tuple(dict.fromkeys(found["left_out"])),
        )

    # --- a second run ---

    def _run_again(self, seen: Observation) -> Observation:
        """Stop the revision after each commit, and run it again as the function does."""
        places = _stops(seen.upgrade.statements)
        if not places or seen.revision not in self.position.applied:
            return seen
        reruns: list[tuple[int, Execution]] = []
        for place in places[:_MOST_RERUNS]:
            down = self._execute("downgrade", seen.revision, self.position.read(), seen.rows)
            if down.failure is not None or not self._stopped(seen.revision, place):
                self.position.give_up()
                break
            again = self._resumed(seen.revision)
            reruns.append((place, again))
            if again.failure is not None:
                self.position.give_up()
                break
        return replace(seen, reruns=tuple(reruns) or None)

    def _stopped(self, revision: str, before: int) -> bool:
        connections = self.position.connections
        try:
            return bool(connections.execute({"do": "stop", "revision": revision, "before": before})["stopped"])
        except DiedError:
            connections.end_process()
            return False

    def _resumed(self, revision: str) -> Execution:
        connections = self.position.connections
        try:
            failure = connections.execute({"do": "resume", "revision": revision})["failure"]
        except DiedError as error:
            connections.end_process()
            return Execution((), failure=str(error))
        if failure is not None:
            return Execution((), failure["text"], failure["sql"], failure["sqlstate"])
        self.position.note_run("upgrade", revision)
        return Execution(())

    def _with_values_of_the_new_schema(self, seen: Observation) -> Observation:
        """Return the observation, with the downgrade's failure on values that only the new schema allows."""
        opened = self.position.connections.opened()
        if seen.again is None or not wider.use_what_is_new(opened, seen.before, seen.again):
            return seen
        refused = self._execute("downgrade", seen.revision, seen.again, seen.rows)
        if refused.failure is None:
            again = self._execute("upgrade", seen.revision, self.position.read(), seen.rows)
            if again.failure is None:
                return seen
        self.position.give_up()
        state = refused.sqlstate or ""
        return replace(seen, downgrade_refused=refused) if state.startswith(REFUSED_ROWS) else seen


def _stops(statements: Sequence[Statement]) -> list[int]:
    """Return the numbers of the statements, from 1, before which a part of the revision is already committed."""
    pairs = enumerate(pairwise(statements), start=1)
    return [place for place, (one, following) in pairs if not one.in_transaction or following.begins_without_locks]


def _without_any_rows(observation: Observation) -> Observation:
    reason = (
        "it fails on all test rows and succeeds only on empty tables, so its reads, rewrites and lost rows were not"
        " measured; see upgrade-depends-on-data"
    )
    unfilled = {table.name: "the revision fails on the test rows" for table in observation.before.tables}
    return replace(observation, unfilled=unfilled, unmeasured=(reason,))


def _without_rows(observation: Observation) -> Iterator[str]:
    """Yield why the review could not fill a table that the revision touches."""
    if observation.unmeasured:
        return  # the reason covers all tables
    executions = (observation.upgrade, observation.downgrade)
    touched = {lock.table for each in executions if each for statement in each.statements for lock in statement.locks}
    for table, reason in observation.unfilled.items():
        if table in touched:
            yield f"{table} stayed empty: {reason}; reads, rewrites and lost rows there were not measured"


def _under_new_names(counts: Mapping[str, int], before: Catalog, after: Catalog) -> dict[str, int]:
    """Return the rows of tables that were renamed, by their new names."""
    now = {table.oid: table.name for table in after.tables}
    return {
        now[table.oid]: counts[table.name] for table in before.tables if now.get(table.oid, table.name) != table.name
    }


def _is_bounded(table: Table, catalog: Catalog) -> bool:
    """Return whether a table has few rows in every database, because one of its keys allows only a list of values."""
    listed = {column.name for column in table.columns if column.type == "boolean" or column.type in catalog.enums}
    listed |= {each.columns[0] for each in table.constraints if each.kind == "c" and _LISTS.fullmatch(each.definition)}
    required = {column.name for column in table.columns if column.not_null}
    keys = (set(each.columns) for each in table.indexes if each.unique and each.valid and not each.partial)
    return any(key and key <= listed & required for key in keys)


def _replaced(before: Catalog, after: Catalog) -> list[str]:
    """Return the names that belong to another table (oid) after the revision."""
    now = {table.name: table.oid for table in after.tables}
    return [table.name for table in before.tables if now.get(table.name, table.oid) != table.oid]


def _statement(found: Mapping[str, Any]) -> Statement:
    return Statement(
        sql=found["sql"],
        duration_ms=found["duration_ms"],
        in_transaction=found["in_transaction"],
        locks=tuple(Lock(table, mode) for table, mode in found["locks"]),
        scanned=tuple(found["scanned"]),
        rewritten=tuple(found["rewritten"]),
        read=found["read"],
        changed=found["changed"],
        locked=found.get("locked", {}),
        bounded=found.get("bounded", False),
        idle_ms=found["idle_ms"],
        time_zone=found.get("time_zone"),
        after_commit=found.get("after_commit", False),
    )
