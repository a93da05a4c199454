"""The terminal output of a run has every fact of the answer, and does not interpret text as markup."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console

from migrate_cli import presentation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def shown(show: Callable[[Mapping[str, Any], Console], None], content: Mapping[str, Any]) -> str:
    console = Console(file=StringIO(), width=120, highlight=False)
    show(content, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def result(*applied: tuple[str, str, int], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "stage": "dev",
        "database": "app",
        "previous_revision": "aaaa",
        "revision": "cccc",
        "applied": [{"revision": id_, "description": text, "duration_ms": took} for id_, text, took in applied],
        "duration_ms": 2345,
        **changes,
    }


def test_each_applied_revision_is_a_row_with_its_description_and_duration() -> None:
    text = shown(presentation.show_result, result(("bbbb", "Add users", 14), ("cccc", "Backfill", 12345)))

    rows = [line.split() for line in text.splitlines()]
    assert ["bbbb", "Add", "users", "14", "ms"] in rows
    assert ["cccc", "Backfill", "12,345", "ms"] in rows


def test_the_last_line_says_from_where_to_where_and_how_long_it_took() -> None:
    text = shown(presentation.show_result, result(("bbbb", "Add users", 14), ("cccc", "Backfill", 12345)))

    assert text.splitlines()[-1] == "Applied 2 revisions to app (dev): from aaaa to cccc in 2.3 s."


def test_a_check_shows_what_was_compared() -> None:
    same = {**result(), "action": "check", "schema": "equal", "differences": []}
    unknown = {**same, "schema": "unknown", "reason": "there are several version tables"}

    assert shown(presentation.show, same) == "No drift: app (dev) has the schema of cccc.\n"
    assert "not compared with the reviewer's record: there are several" in shown(presentation.show, unknown)


def test_one_revision_is_no_plural() -> None:
    text = shown(presentation.show_result, result(("cccc", "Backfill", 1)))

    assert "Applied 1 revision to" in text


def test_an_empty_database_is_called_so() -> None:
    text = shown(presentation.show_result, result(("cccc", "Backfill", 1), previous_revision=None))

    assert "from base (an empty database) to cccc" in text


def test_nothing_to_apply_is_one_line_that_says_so() -> None:
    assert shown(presentation.show_result, result()) == "Nothing to apply: app is at cccc.\n"


def test_markup_in_a_description_is_shown_as_it_is() -> None:
    text = shown(presentation.show_result, result(("cccc", "[bold]x[/bold] [/nonsense]", 1)))

    assert "[bold]x[/bold] [/nonsense]" in text


def test_markup_in_a_revision_is_shown_as_it_is() -> None:
    assert "[red]id" in shown(presentation.show_result, result(("[red]id", "Backfill", 1)))


def test_an_error_shows_its_name_and_its_message_as_they_are() -> None:
    error = {"errorType": "MigrationFailed", "errorMessage": "revision [bold]cccc[/] raised"}

    assert shown(presentation.show_error, error) == "MigrationFailed: revision [bold]cccc[/] raised\n"


def test_a_long_error_message_stays_on_one_line() -> None:
    error = {"errorType": "MigrationFailed", "errorMessage": "word " * 60}

    assert len(shown(presentation.show_error, error).splitlines()) == 1


def test_an_error_without_a_name_is_shown_all_the_same() -> None:
    assert shown(presentation.show_error, {"errorMessage": "killed"}) == "Error: killed\n"


# --- the other actions ---


def status(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    answer: dict[str, Any] = {
        "action": "status",
        "schema": None,
        "up_to_date": True,
        "pending": [],
        "lock": None,
        "invalid_indexes": [],
    }
    return result(**{**answer, **changes})


def facts(text: str) -> dict[str, str]:
    return {name: fact.strip() for name, _, fact in (line.partition(":") for line in text.splitlines())}


def test_a_status_tells_where_the_database_is_and_that_nothing_is_in_the_way() -> None:
    found = facts(shown(presentation.show, status()))

    assert (found["Stage"], found["Database"], found["Revision"]) == ("dev", "app", "cccc")
    assert (found["Migration lock"], found["Invalid indexes"]) == ("free", "none")
    assert "Up to date." in found


def test_a_status_shows_the_pending_revisions_and_the_holder_of_the_lock() -> None:
    lock = {"pid": 7, "holder": "dev/1234", "since": "2026-01-01T00:00:00Z"}
    pending = [{"revision": "dddd", "description": "Add [b]"}]

    text = shown(presentation.show, status(schema="tenant", lock=lock, up_to_date=False, pending=pending))

    assert facts(text)["Migration lock"] == "held by dev/1234 (pid 7) since 2026-01-01T00:00:00Z"
    assert facts(text)["Database"] == "app, schema tenant"
    assert text.splitlines()[-1].split() == ["dddd", "Add", "[b]"]
    assert "1 revision pending:" in text


def test_several_version_tables_are_each_named() -> None:
    in_s1 = {"schema": "s1", "version_table": "alembic_version"}
    pending = [{"revision": "dddd", "description": "Add b", **in_s1}]
    tables = [
        {**in_s1, "revision": "cccc", "pending": ["dddd"]},
        {**in_s1, "schema": "s2", "revision": None, "pending": []},
    ]
    changes = {"pending": pending, "version_tables": tables, "up_to_date": False}

    rows = [line.split() for line in shown(presentation.show, status(**changes)).splitlines()]
    applied = shown(
        presentation.show_result, result(("dddd", "Add b", 1), applied=[{**pending[0], "duration_ms": 1}], **changes)
    )

    assert ["s1.alembic_version", "cccc", "1"] in rows
    assert ["s2.alembic_version", "base", "(an", "empty", "database)", "0"] in rows
    assert ["dddd", "s1.alembic_version", "Add", "b"] in rows
    assert ["dddd", "s1.alembic_version", "Add", "b", "1", "ms"] in [line.split() for line in applied.splitlines()]


def test_a_database_ahead_is_no_success_in_green_words() -> None:
    text = shown(presentation.show, result(action="upgrade", ahead=True))

    assert text.startswith("Newer than the package: app is at cccc")


def test_a_downgrade_shows_what_was_taken_back() -> None:
    reverted = [{"revision": "cccc", "description": "Backfill", "duration_ms": 5}]
    answer = result(action="downgrade", previous_revision="cccc", revision="bbbb", reverted=reverted)

    text = shown(presentation.show, answer)

    assert ["cccc", "Backfill", "5", "ms"] in [line.split() for line in text.splitlines()]
    assert text.splitlines()[-1] == "Reverted 1 revision of app (dev): from cccc to bbbb in 2.3 s."


def test_a_history_shows_what_comes_after_what() -> None:
    entry = {"branch_labels": ["pay"], "down_revisions": ["aaaa", "bbbb"], "head": True}
    entries = [{"revision": "cccc", "description": "Merge", **entry}]

    text = shown(
        presentation.show, {"action": "history", "stage": "dev", "history": entries, "count": 1, "truncated": True}
    )

    assert ["cccc", "aaaa,", "bbbb", "head,", "pay", "Merge"] in [line.split() for line in text.splitlines()]
    assert "Cut: " in text


def test_a_terminals_commands_in_a_description_are_made_visible() -> None:
    text = shown(presentation.show_result, result(("cccc", "\x1b[2Jgone\x07", 1)))

    assert "\ufffd[2Jgone\ufffd" in text
    assert "\x1b" not in text


def test_a_checkpoint_is_shown_before_the_revisions_after_it() -> None:
    checkpoint = {"revision": "aaaa", "revisions": 12, "duration_ms": 80}

    alone = shown(presentation.show_result, result(checkpoint=checkpoint, previous_revision=None, revision="aaaa"))
    more = shown(presentation.show_result, result(("cccc", "Backfill", 1), checkpoint=checkpoint))

    assert alone.splitlines() == ["Began with a checkpoint of 12 revisions, at aaaa: app is at aaaa."]
    assert more.splitlines()[0].startswith("Began with a checkpoint of 12 revisions, at aaaa: ")
    assert "Applied 1 revision to app" in more
