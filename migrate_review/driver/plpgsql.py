"""Finds the branches of DO blocks that did not run. The review reports them as not measured.

`marked` adds a variable to a block for each branch, and an assignment to each branch. The block publishes the branches
that ran in a setting of the session. A function that the revision creates, calls and drops gets the same marks. A
function that stays is part of the schema and gets no marks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from lambda_migrate.env_py.statements import split

# Each text gets a new setting, because a setting keeps the value of an earlier text.
_NUMBERS = count(1)
_HAS_BLOCK = re.compile(r"\b(DO|FUNCTION|PROCEDURE)\b", re.IGNORECASE)
_DO = re.compile(
    r"(?P<begin>(?:\s|--[^\n]*\n|/\*.*?\*/)*DO\s+(?:LANGUAGE\s+'?plpgsql'?\s+)?(?P<quote>\$\w*\$))(?P<body>.*)"
    r"(?P<end>(?P=quote)\s*(?:LANGUAGE\s+'?plpgsql'?\s*)?;?\s*)",
    re.IGNORECASE | re.DOTALL,
)
_ROUTINE = re.compile(
    r"(?P<begin>(?:\s|--[^\n]*\n|/\*.*?\*/)*CREATE\s+(?:OR\s+REPLACE\s+)?(?P<kind>FUNCTION|PROCEDURE)\s+"
    r"(?P<schema>\w+\.)?(?P<name>\w+)\s*\(.*?\bAS\s+(?P<quote>\$\w*\$))(?P<body>.*)(?P<end>(?P=quote).*)",
    re.IGNORECASE | re.DOTALL,
)
_PLPGSQL = re.compile(r"\bLANGUAGE\s+'?plpgsql\b", re.IGNORECASE)
_TOKEN = re.compile(
    r"(?P<skipped>\s+|--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(?P<tag>\$\w*\$).*?(?P=tag))"
    r"|(?P<label><<\s*\w+\s*>>)|(?P<word>[A-Za-z_]\w*)|(?P<other>.)",
    re.DOTALL,
)
_CHANGES = frozenset(
    "INSERT UPDATE DELETE MERGE ALTER CREATE DROP TRUNCATE EXECUTE PERFORM CALL REFRESH REINDEX CLUSTER LOCK COPY WITH"  # noqa: SIM905
    " REVOKE".split()
)
# SQLSTATEs and conditions for an object that already exists: the state that the statement wanted.
_EXISTS = ("42710", "42P07", "42701", "42P06", "42723")
_EXISTS_CONDITION = re.compile(r"(\s*\b(duplicate_\w+|OR|SQLSTATE\s*'42(710|P07|701|P06|723)'))+\s*", re.IGNORECASE)


@dataclass
class Marked:
    """A text of SQL whose blocks have marks. ``branches`` and ``handlers`` describe those that matter, by number.

    Each run publishes the numbers in ``setting``. ``functions`` maps the branches of a function's body to the number
    that the function publishes when it is called, and ``names`` maps that number to the function's name.
    """

    sql: str
    original: str
    setting: str
    branches: dict[int, str]
    handlers: dict[int, str]
    functions: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def runs_later(self) -> bool:
        """Return whether a block is the body of a function, which later statements call."""
        return bool(self.names)

    def unmarked(self, sql: str) -> str:
        """Return the text without marks. ``sql`` is the marked text as the driver got it or as it sent it."""
        doubled = sql.strip() == self.sql.strip()  # SQLAlchemy doubles each % for some drivers
        return self.original.strip() if doubled else self.original.strip().replace("%%", "%")

    def left_out(self, ran: str) -> list[str]:
        """Return the branches that did not run, and the handlers that did. ``ran`` is the value of the setting."""
        numbers = {int(each) for each in ran.split(",") if each}
        missed = [
            f"{self._block(number)} did not run: {text}"
            for number, text in self.branches.items()
            if number not in numbers and self.functions.get(number) in (None, *numbers)
        ]
        caught = [
            f"{self._block(number)} caught an error: {text}"
            for number, text in self.handlers.items()
            if number in numbers
        ]
        return missed + caught

    def _block(self, number: int) -> str:
        called = self.functions.get(number)
        return "the DO block" if called is None else f"the function {self.names[called]}"


class _NotReadError(Exception):
    """This module cannot read the block, which stays unchanged."""


def already_exists(error: Any) -> bool:  # noqa: ANN401 - any driver's
    """Return whether a statement failed because its object already exists. The revision may then catch the error."""
    return (getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)) in _EXISTS


def marked(sql: str, revision: str = "") -> Marked | None:
    """Return a text with marks in its blocks of PL/pgSQL; None if none has a branch that changes anything.

    ``revision`` is the source of the revision's ``upgrade()``. It shows the functions that the revision drops again.
    """
    if not _HAS_BLOCK.search(sql):
        return None
    found = Marked("", sql, f"review.ran_{next(_NUMBERS)}", {}, {})
    first, pieces = 1, []
    for piece in split(sql):
        routine = _ROUTINE.fullmatch(piece)
        block = routine if routine is not None and _is_helper(routine, revision) else _DO.fullmatch(piece)
        reader = _Reader(block["body"], count=first - 1) if block is not None else None
        if block is None or reader is None or not reader.read():
            pieces.append(piece)
            continue
        called = None
        if block is routine:
            called = reader.count = reader.count + 1
            found.names[called] = block["name"]
            found.functions.update(dict.fromkeys((*reader.branches, *reader.handlers), called))
        pieces.append(f"{block['begin']} {reader.written(found.setting, first, called)} {block['end']}")
        found.branches.update(reader.branches)
        found.handlers.update(reader.handlers)
        first = reader.count + 1
    found.sql = ";".join(pieces)
    return found if found.branches or found.handlers else None


def _is_helper(routine: re.Match[str], revision: str) -> bool:
    """Return whether the revision drops this function of PL/pgSQL again."""
    if not _PLPGSQL.search(routine["begin"]) and not _PLPGSQL.search(routine["end"]):
        return False
    if (routine["schema"] or "").lower() == "pg_temp.":
        return True
    # A DROP before the CREATE, or in downgrade(), is that of a function that stays.
    named = rf"\s+(FUNCTION|PROCEDURE|ROUTINE)\s+(IF\s+EXISTS\s+)?(\w+\.)?{routine['name']}\b"
    made = [*re.finditer(rf"\bCREATE(\s+OR\s+REPLACE)?{named}", revision, re.IGNORECASE)]
    return bool(made) and re.search(rf"\bDROP{named}", revision[made[-1].end() :], re.IGNORECASE) is not None


@dataclass
class _Reader:
    """Reads the statements of a block. ``count`` is the number of the last mark."""

    body: str
    branches: dict[int, str] = field(default_factory=dict)
    handlers: dict[int, str] = field(default_factory=dict)
    count: int = 0
    _inserts: list[tuple[int, int | None]] = field(default_factory=list)
    _at: int = 0

    def __post_init__(self) -> None:
        # Words in capitals, and other characters unchanged, each with its position. A word after a dot is a column and
        # no keyword.
        self._tokens: list[tuple[str, int, int]] = []
        for found in _TOKEN.finditer(self.body):
            if not found["skipped"]:
                is_column = bool(self._tokens) and self._tokens[-1][0] == "." and found["word"]
                text = (
                    found["word"].lower()
                    if is_column
                    else (found["word"] or "").upper() or found["label"] or found["other"]
                )
                self._tokens.append((text, found.start(), found.end()))

    def read(self) -> bool:
        """Read the whole block. Return whether it has a branch that matters, and only syntax that this module knows."""
        if self.body.lstrip().startswith("#"):
            return False
        try:
            self.block()
            self.end()
        except (_NotReadError, IndexError):
            return False
        return bool(self.branches or self.handlers)

    def written(self, setting: str, first: int, called: int | None = None) -> str:
        """Return the body with its marks. It publishes those from ``first`` on at its end and before each RETURN.

        It always publishes the number ``called``, which has no mark.
        """
        numbers = range(first, self.count + 1)
        ran = ", ".join(f"CASE WHEN {each == called} OR review_{each} THEN '{each}' END" for each in numbers)
        known = f"nullif(pg_catalog.current_setting('{setting}', true), '')"
        # An assignment, because PERFORM would set FOUND, which a function may return.
        publish = f"review_ran := pg_catalog.set_config('{setting}', pg_catalog.concat_ws(',', {known}, {ran}), false);"
        variables = " ".join(("review_ran text;", *(f"review_{each} boolean;" for each in numbers)))
        body = self._with_marks(publish).rstrip().removesuffix(";")
        return f"DECLARE {variables} BEGIN {body}; {publish} END"

    def _with_marks(self, publish: str) -> str:
        text = self.body
        for position, number in sorted(self._inserts, key=lambda each: each[0], reverse=True):
            added = publish if number is None else f"review_{number} := true;"
            text = f"{text[:position]} {added} {text[position:]}"
        return text

    def end(self) -> None:
        """Require that nothing follows the block."""
        if self._at < len(self._tokens) and self._word() == ";":
            self._at += 1
        if self._at < len(self._tokens):
            raise _NotReadError

    def block(self) -> None:
        """Read a block, from its label or DECLARE to the label after END."""
        while self._word().startswith("<<"):
            self._at += 1
        if self._word() == "DECLARE":
            self._skip_to({"BEGIN"})
        self._take("BEGIN")
        self._statements()
        if self._word() == "EXCEPTION":
            self._at += 1
            while self._word() == "WHEN":
                begin = self._position()
                self._skip_to({"THEN"})
                condition = self.body[begin + len("WHEN") : self._position()]
                self._at += 1
                number = self._mark()
                raises = self._statements()[1]
                if not raises and not _EXISTS_CONDITION.fullmatch(condition):
                    self.handlers[number] = f"EXCEPTION WHEN {' '.join(condition.split())}"
        self._take("END")
        if self._word() not in {";", ""}:
            self._at += 1  # the label

    def _statements(self) -> tuple[bool, bool]:
        """Read statements up to the end of their block. Return whether they change anything, and whether they raise."""
        changes = raises = False
        while (word := self._word()) not in {"END", "ELSIF", "ELSEIF", "ELSE", "WHEN", "EXCEPTION"}:
            if not word:
                raise _NotReadError
            if word.startswith("<<"):
                self._at += 1
            elif word in {"DECLARE", "BEGIN"}:
                before = len(self._inserts)
                self.block()
                self._skip_to({";"}, take=True)
                changes = changes or len(self._inserts) > before
            elif word in {"IF", "CASE", "FOR", "FOREACH", "WHILE", "LOOP"}:
                changes = self._compound(word) or changes
            else:
                if word == "RETURN":
                    self._inserts.append((self._position(), None))
                changes, raises = changes or word in _CHANGES, raises or word == "RAISE"
                self._skip_to({";"}, take=True)
        return changes, raises

    def _compound(self, kind: str) -> bool:
        """Read an IF, a CASE or a loop. Return whether a branch of it changes anything."""
        begin, changes = self._position(), False
        self._at += 1
        if kind == "IF":
            self._skip_to({"THEN"})
            changes = self._branch(begin)
            while self._word() in {"ELSIF", "ELSEIF"}:
                begin = self._position()
                self._skip_to({"THEN"})
                changes = self._branch(begin) or changes
        elif kind == "CASE":
            self._skip_to({"WHEN"})
            while self._word() == "WHEN":
                begin = self._position()
                self._at += 1
                self._skip_to({"THEN"})
                changes = self._branch(begin) or changes
        else:
            if kind != "LOOP":
                self._skip_to({"LOOP"})
                changes = self._branch(begin)
            else:
                changes = self._statements()[0]
            self._take("END")
            self._take("LOOP")
            self._skip_to({";"}, take=True)
            return changes
        if self._word() == "ELSE":
            changes = self._branch(self._position()) or changes
        self._take("END")
        self._take(kind)
        self._skip_to({";"}, take=True)
        return changes

    def _branch(self, begin: int) -> bool:
        """Read a branch behind its THEN, ELSE or LOOP."""
        head = " ".join(self.body[begin : self._tokens[self._at][2]].split())
        self._at += 1
        number = self._mark()
        changes, _ = self._statements()
        if changes:
            self.branches[number] = head
        return changes

    def _mark(self) -> int:
        self.count += 1
        self._inserts.append((self._tokens[self._at - 1][2], self.count))
        return self.count

    def _word(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _position(self) -> int:
        return self._tokens[self._at][1]

    def _take(self, word: str) -> None:
        if self._word() != word:
            raise _NotReadError
        self._at += 1

    def _skip_to(self, words: set[str], *, take: bool = False) -> None:
        """Go to one of these words, outside of parentheses and of CASE expressions."""
        depth = 0
        while depth or self._word() not in words:
            word = self._word()
            if not word:
                raise _NotReadError
            depth += word in {"(", "[", "CASE"}
            depth -= word in {")", "]", "END"}
            self._at += 1
        self._at += take
