"""Chooses values by a column's meaning: from its name, and from the revisions' code.

A text column may contain any text. But if its name is ``client_ip``, or a revision casts it to inet, it gets IP
addresses. A document fits the column's default, and the functions and keys that the code uses on it. Unrealistic values
would make good revisions fail.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Meaning:
    """The texts of a column: ``some`` examples. ``nth`` returns one for each number and salt; None if there are few.

    ``type`` is the type to which they can be cast, or "" for text. ``only`` is True if the code reads no other texts.
    """

    some: tuple[str, ...]
    nth: Callable[[int, int], str] | None = None
    type: str = ""
    only: bool = False


def _parts(number: int) -> tuple[int, int, int]:
    return number >> 16 & 255, number >> 8 & 255, number & 255


def _day(number: int) -> str:
    return f"{2001 + number // 336}-{number // 28 % 12 + 1:02}-{number % 28 + 1:02}"


_MEANINGS = {
    "email": Meaning(
        (
            "ada.lovelace@example.com", "Ada.Lovelace@Example.COM", "o'brien@example.ie", "zoe+news@example.org",
            "first_last@mail.example.co.uk", "info@example.net",
        ),
        lambda n, salt: f"user{n}.{tag(salt)}@example.com",
    ),
    "inet": Meaning(
        ("192.0.2.1", "10.1.2.3", "2001:db8::1", "127.0.0.1", "198.51.100.23"),
        lambda n, _: "10." + ".".join(str(part) for part in _parts(n)),
        type="inet",
    ),
    "url": Meaning(
        ("https://example.com/", "https://example.com/a?b=c#d", "http://localhost:8000/x", "https://example.org/%C3%A9"),
        lambda n, salt: f"https://example.com/{tag(salt)}/{n}",
    ),
    "phone": Meaning(("+44 20 7946 0018", "030 901820", "+1-202-555-0143", "112"), lambda n, _: f"+49 30 {n:07}"),
    "uuid": Meaning(("6fa459ea-ee8a-4ca4-894e-db77e160355e",), lambda n, salt: uuid(n, salt), type="uuid"),  # noqa: PLW0108 - defined below
    "jsonb": Meaning(
        ('{"a": 1}', '{"a": {"b": [1, 2, null]}}', '{"name": "Zoë", "on": true}', "{}"), lambda n, _: f'{{"n": {n}}}',
        type="jsonb",
    ),
    "date": Meaning(("1999-12-31", "2024-02-29", "2026-01-01", "2025-06-15"), lambda n, _: _day(n), type="date"),
    "timestamp": Meaning(
        ("1999-12-31 23:59:59", "2024-02-29 12:00:00", "2026-01-01 00:00:00", "2025-06-15 08:30:00"),
        lambda n, _: f"{_day(n)} 12:00:00",
        type="timestamp",
    ),
    "time": Meaning(
        ("00:00:00", "12:30:00", "23:59:59"), lambda n, _: f"{n // 60 % 24:02}:{n % 60:02}:00", type="time"
    ),
    "interval": Meaning(("1 hour", "90 minutes", "3 days"), lambda n, _: f"{n} hours", type="interval"),
    "macaddr": Meaning(
        ("08:00:2b:01:02:03",), lambda n, _: "08:00:2b:" + ":".join(f"{part:02x}" for part in _parts(n)),
        type="macaddr",
    ),
    "boolean": Meaning(("true", "false")),
    "number": Meaning(("0", "1", "2", "5", "10", "42", "100", "365"), lambda n, _: str(n), type="numeric"),
    "decimal": Meaning(("0", "1", "9.99", "12.50", "100", "1234.5"), lambda n, _: f"{n}.25", type="numeric"),
    "year": Meaning(("1999", "2024", "2026"), lambda n, _: str(1900 + n % 200), type="integer"),
    "language": Meaning(("en", "de", "fr", "en-GB", "pt-BR", "ja")),
    "country": Meaning(("DE", "AT", "US", "GB", "FR", "JP")),
    "currency": Meaning(("EUR", "USD", "GBP", "JPY", "CHF")),
    "zone": Meaning(("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo")),
    "color": Meaning(("#ffcc00", "#000000", "#FFFFFF"), lambda n, _: f"#{n & 0xFFFFFF:06x}"),
    "slug": Meaning(("ada-lovelace", "a", "item-42", "x-y-z"), lambda n, salt: f"item-{tag(salt)}-{n}"),
    "hash": Meaning(("d41d8cd98f00b204e9800998ecf8427e",), lambda n, salt: uuid(n, salt).replace("-", "")),
    "path": Meaning(
        ("/var/lib/data", "images/a b.png", "C:\\data\\x.csv", "report.pdf"), lambda n, salt: f"{tag(salt)}/{n}.txt"
    ),
    "version": Meaning(("1.0.0", "2.10.3", "0.1"), lambda n, _: f"1.{n}.0"),
}  # fmt: skip

# The words at the end of a name, and the texts for that name.
_BY_NAME = (
    ("email mail e_mail email_address mail_address", "email"),
    ("ip ip_address ip_addr ipaddress ipv4 ipv6 remote_addr remote_address client_address host_ip", "inet"),
    ("url uri link website homepage href webhook webhook_url callback", "url"),
    ("phone phone_number mobile telephone tel fax", "phone"),
    ("uuid guid", "uuid"),
    ("json jsonb", "jsonb"),
    ("date birthday dob", "date"),
    ("at timestamp datetime", "timestamp"),
    ("mac mac_address", "macaddr"),
    ("count quantity qty age port", "number"),
    ("price amount cost", "decimal"),
    ("year", "year"),
    ("language lang locale", "language"),
    ("country country_code", "country"),
    ("currency currency_code", "currency"),
    ("timezone time_zone tz", "zone"),
    ("color colour", "color"),
    ("slug", "slug"),
    ("hash sha sha256 sha1 md5 checksum digest etag", "hash"),
    ("path file filename file_name filepath", "path"),
    ("version", "version"),
)
_NAMES = {word: meaning for words, meaning in _BY_NAME for word in words.split()}
_YES_OR_NO = re.compile(r"(is|has|can|was)_\w+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# The types to which code casts a column. Numbers come only after other values have failed, because such a revision must
# expect texts that are not numbers.
_CASTS = {
    "inet": "inet", "cidr": "inet", "uuid": "uuid", "json": "jsonb", "jsonb": "jsonb", "date": "date",
    "timestamp": "timestamp", "timestamptz": "timestamp", "time": "time", "interval": "interval", "macaddr": "macaddr",
}  # fmt: skip
_CASTS_OF_TAME = {
    "int": "number", "int2": "number", "int4": "number", "int8": "number", "integer": "number", "bigint": "number",
    "smallint": "number", "numeric": "decimal", "decimal": "decimal", "float": "decimal", "double": "decimal",
    "real": "decimal", "float8": "decimal", "bool": "boolean", "boolean": "boolean",
}  # fmt: skip


def of_text(column: str, texts: Iterable[str], *, tame: bool) -> Meaning | None:
    """Return the meaning of a text column by the code that casts it or by its name, or None if it is unknown."""
    name = re.escape(column)
    cast = re.compile(
        rf'(?<![\w"])"?{name}"?\s*::\s*"?(\w+)|\bcast\s*\(\s*(?:\w+\.)?"?{name}"?\s+as\s+"?(\w+)', re.IGNORECASE
    )
    casts = _CASTS | _CASTS_OF_TAME if tame else _CASTS
    texts = tuple(texts)
    loads = re.compile(rf"""\bloads\(\s*(?:\w+\.)*(?:\w+\[['"])?{name}\b""")
    if any(loads.search(text) for text in texts):
        return Meaning(tuple(documents(column, None, texts, tame=tame)), type="jsonb", only=True)
    read = re.compile(rf"""\bto_(?:date|timestamp)\s*\(\s*(?:\w+\.)?"?{name}"?\s*,\s*'([^']+)'""", re.IGNORECASE)
    for text in texts:
        for found in read.finditer(text):
            return Meaning(tuple(_formatted(found[1], each) for each in _MOMENTS), only=True)
        for found in cast.finditer(text):
            meaning = casts.get((found[1] or found[2]).lower())
            if meaning is not None:
                return _MEANINGS[meaning]
    words = _CAMEL.sub("_", column).lower()
    if _YES_OR_NO.fullmatch(words):
        return _MEANINGS["boolean"]
    parts = words.split("_")
    ends = ("_".join(parts[at:]) for at in range(len(parts)))
    return next((_MEANINGS[_NAMES[end]] for end in ends if end in _NAMES), None)


# Year, month, day, hour, minute and second.
_MOMENTS = (
    ("1999", "12", "31", "23", "59", "59"),
    ("2024", "02", "29", "12", "00", "00"),
    ("2026", "01", "01", "00", "30", "15"),
)
_FORMAT = re.compile(r"YYYY|YY|MM|DD|HH24|HH12|HH|MI|SS")


def _formatted(pattern: str, moment: tuple[str, ...]) -> str:
    """Return a moment as text that to_date() and to_timestamp() can read with a pattern."""
    year, month, day, hour, minute, second = moment
    parts = {"YYYY": year, "YY": year[2:], "MM": month, "DD": day, "HH24": hour, "MI": minute, "SS": second}
    parts |= {"HH12": "07", "HH": "07"}
    words = pattern.replace("Month", "June").replace("Mon", "Jun").replace("MON", "JUN")
    return _FORMAT.sub(lambda part: parts[part[0]], words)


_PARTS_OF_TIME = {
    "year": ("1999", "2024", "2026"),
    "month": ("1", "2", "7", "12"),
    "day": ("1", "15", "28"),
    "hour": ("0", "7", "23"),
    "minute": ("0", "30", "59"),
    "second": ("0", "30", "59"),
    "port": ("22", "443", "8080", "65535"),
}


def of_integer(column: str) -> tuple[str, ...]:
    """Return numbers for a column whose name is a part of a date or time, or no numbers for another column."""
    return _PARTS_OF_TIME.get(_CAMEL.sub("_", column).lower().rpartition("_")[2], ())


# --- documents ---

_ARRAY_FUNCTION = r"jsonb?_array_(?:elements(?:_text)?|length)\s*\(\s*"
_STEP = r"\s*->>?\s*(?:'[^']*'|\d+)"
_KEY = re.compile(r"->>?\s*(?:'([^']*)'|(\d+))")
_NUMBER_CAST = re.compile(r"\s*\)?\s*::\s*(int\w*|bigint|smallint|numeric|float\w*|double|real)", re.IGNORECASE)
_BOOLEAN_CAST = re.compile(r"\s*\)?\s*::\s*bool", re.IGNORECASE)
_WORDS = ("x", "Zoë", "42", "")


def documents(column: str, default: str | None, texts: Iterable[str], *, tame: bool) -> list[str]:
    """Return JSON documents of one shape, with the keys that code looks for.

    Keys that Python reads with ``row.column["key"]`` are in every document. Keys that SQL reads are missing in some
    documents, unless ``tame``.
    """
    reference = rf'(?<![\w"])(?:\w+\.)?"?{re.escape(column)}"?(?:::jsonb?)?'
    several = tuple(texts)
    if _is_array(reference, default, several):
        return [json.dumps(each, ensure_ascii=False) for each in _arrays(several)]
    needed: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for text in several:
        for found in re.finditer(
            rf"(?P<array>{_ARRAY_FUNCTION})?{reference}(?P<path>(?:{_STEP})+)", text, re.IGNORECASE
        ):
            after = text[found.end() :]
            _put(optional, [key or number for key, number in _KEY.findall(found["path"])], _leaf(found["array"], after))
        for found in re.finditer(rf"{reference}\['([^']+)'\]", text):
            needed.setdefault(found[1], "x")
        for found in re.finditer(rf"{reference}\s*\?\s*'([^']+)'", text):
            optional.setdefault(found[1], "x")
    whole = needed | optional
    found_documents: list[Any] = [_varied(whole, word) for word in _WORDS]
    if not tame or not whole:
        bare: list[dict[str, Any]] = [
            {},
            {"a": 1},
            {"a": {"b": [1, 2, None]}},
            {"name": "Zoë", "on": True, "n": 1.5},
            {"A": "MiXed", "e": ""},
        ]
        found_documents += [needed | each for each in bare]
    kept = [each for each in found_documents if each or not whole]
    return list(dict.fromkeys(json.dumps(each, ensure_ascii=False) for each in kept))


def _is_array(reference: str, default: str | None, texts: Iterable[str]) -> bool:
    if any(re.search(rf"{_ARRAY_FUNCTION}{reference}\s*(?:::\w+\s*)?\)", text, re.IGNORECASE) for text in texts):
        return True
    return (default or "").startswith("'[")


def _arrays(texts: Iterable[str]) -> list[list[Any]]:
    """Return arrays of objects if the code reads keys, or else arrays of texts."""
    keys = {key: "x" for text in texts for key, _ in _KEY.findall(text) if key}
    if not keys:
        return [["x", "y"], ["Zoë"], [], ["a", "b", "c"]]
    return [[keys], [keys, _varied(keys, "Zoë")], []]


def _leaf(array: str | None, after: str) -> Any:  # noqa: ANN401 - any JSON
    if array:
        return ["x", "y"]
    if _NUMBER_CAST.match(after):
        return 1
    return True if _BOOLEAN_CAST.match(after) else "x"


def _put(document: dict[str, Any], path: list[str], leaf: Any) -> None:  # noqa: ANN401 - any JSON
    *inner, last = path
    for key in inner:
        there = document.setdefault(key, {})
        if not isinstance(there, dict):
            return
        document = there
    if document.get(last, "x") == "x":
        document[last] = leaf


def _varied(document: Any, word: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the document with every text replaced by ``word``."""
    if isinstance(document, dict):
        return {key: _varied(value, word) for key, value in document.items()}
    if isinstance(document, list):
        return [_varied(each, word) for each in document]
    return word if isinstance(document, str) else document


# --- values that differ between tables ---


def salt_of(table: str, column: str) -> int:
    """Return a number that differs for each column of each table."""
    return crc32(f"{table}.{column}".encode())


def tag(salt: int) -> str:
    """Return a short text that differs for most salts."""
    digits = "abcdefghijklmnopqrstuvwxyz"
    return digits[salt % 26] + digits[salt // 26 % 26] + digits[salt // 676 % 26]


def salted(value: str, salt: int) -> str:
    """Return a text similar to ``value`` that differs for most salts."""
    name, at, domain = value.partition("@")
    return f"{name}.{tag(salt)}{at}{domain}" if at else f"{value} {tag(salt)}"


def uuid(number: int, salt: int) -> str:
    """Return a UUID that differs for each number and for each salt."""
    number += salt << 24
    text = f"{(number * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64:016x}{number % 2**64:016x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:]}"
