"""Generates values of any PostgreSQL type, as text. They vary, and they are the same in every run.

The values expose faults: empty, in mixed case, not ASCII, at the limits of smaller types, padded, duplicates. Values
that would break harmless arithmetic, such as infinity, are missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from migrate_review.rows.meaning import tag, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Type:
    """A type of pg_type. ``shown`` is the result of `format_type`, with modifiers.

    ``element`` is the oid of an array's type, and ``base`` that of a domain's. ``subtype`` is the oid of a range's
    type, or of a multirange's range. ``fields`` are the types of a composite type. ``checks`` are a domain's
    expressions about VALUE.
    """

    oid: int
    name: str
    kind: str
    shown: str
    modifier: int
    element: int = 0
    base: int = 0
    subtype: int = 0
    labels: tuple[str, ...] = ()
    fields: tuple[Type, ...] = ()
    checks: tuple[str, ...] = ()
    not_null: bool = False


_TEXTS = (
    "", "Ada Lovelace", "ada lovelace", "ADA", "a", "b", "Zoë Ångström", "straße", "日本語", "🙂 smile", "O'Brien",
    'say "hi"', "100%", "under_score", "back\\slash", "two\nlines", "tab\tbed", " padded ", "00123", "42", "-7", "3.14",
    "true", "NULL", "null", "2026-02-28", "ada.lovelace@example.com", "Ada.Lovelace@Example.COM", "https://example.com/a?b=c",
    "+44 20 7946 0018", "de", "DE", "en-GB", "x" * 300, "{}", "a,b;c", "/var/lib/data", "abc-def", "AbC123",
)  # fmt: skip

_JSONS = (
    "{}", '{"a": 1}', '{"a": {"b": [1, 2, null]}}', '{"name": "Zoë", "on": true, "n": 1.5}', "[]", '["x", "y"]',
    '[{"k": "v"}]', '{"A": "MiXed", "empty": ""}', '{"list": [], "none": null}',
)  # fmt: skip
_JSON_SCALARS = ('"text"', "1", "null", "true")

# By the type's name in pg_type. The server drops the values that a modifier forbids.
_POOLS: Mapping[str, tuple[str, ...]] = {
    "int2": ("0", "1", "-1", "2", "3", "5", "7", "10", "12", "50", "100", "255", "365", "-300", "1000", "32000"),
    "int4": (
        "0", "1", "-1", "2", "3", "5", "7", "10", "12", "50", "99", "100", "365", "-300", "1000", "40000", "100000",
        "2000000000", "-2000000000",
    ),
    "int8": (
        "0", "1", "-1", "2", "3", "5", "7", "10", "50", "100", "-300", "1000", "40000", "2000000000", "3000000000",
        "-5000000000", "9007199254740993",
    ),
    "numeric": (
        "0", "1", "-1", "0.5", "1.25", "-2.75", "10", "3.14159", "99.99", "100", "1000", "0.001", "-0.01", "123456.789",
        "12345678901234567890.123456789",
    ),
    "float4": ("0", "1", "-1", "0.5", "1.25", "-2.75", "10", "100", "3.1415927", "1e10", "-1e-5"),
    "float8": ("0", "1", "-1", "0.5", "1.25", "-2.75", "10", "100", "3.141592653589793", "1e100", "-1e-50", "0.1"),
    "money": ("0", "1.00", "-1.50", "99.99", "1234567.89"),
    "bool": ("true", "false"),
    "text": _TEXTS,
    "date": (
        "1970-01-01", "1999-12-31", "2000-02-29", "2024-02-29", "2025-03-30", "2025-10-26", "2026-01-01", "2026-06-15",
        "2038-01-19", "1899-12-31", "2100-07-01",
    ),
    "time": ("00:00:00", "23:59:59.999999", "12:00:00", "08:30:15.5", "17:45:00"),
    "timetz": ("00:00:00+00", "23:59:59.999999+05:30", "12:00:00-08", "08:30:15.5+02"),
    "timestamp": (
        "1970-01-01 00:00:00", "1999-12-31 23:59:59.999999", "2024-02-29 12:00:00.123456", "2025-03-30 02:30:00",
        "2026-01-01 00:00:00", "2026-06-15 08:30:00.5", "2038-01-19 03:14:08", "1899-12-31 12:00:00",
    ),
    "timestamptz": (
        "1970-01-01 00:00:00+00", "1999-12-31 23:59:59.999999+00", "2024-02-29 12:00:00.123456+05:30",
        "2025-03-30 02:30:00+01", "2026-01-01 00:00:00+00", "2026-06-15 08:30:00.5-07", "2038-01-19 03:14:08+00",
        "1899-12-31 12:00:00+00",
    ),
    "interval": ("0", "1 second", "90 minutes", "1 day", "-3 days", "1 mon 2 days", "2 years 03:04:05.678", "36:00:00"),
    "json": (*_JSONS, *_JSON_SCALARS, '{"b": 2, "a": 1, "a": 3}', ' { "spaced" : 1 } '),
    "jsonb": (*_JSONS, *_JSON_SCALARS),
    "jsonpath": ("$", "$.a", "$.a[*] ? (@ > 1)", "strict $.b"),
    "bytea": ("", "\\x00", "\\xdeadbeef", "\\x00ff00ff", "\\x616263", "\\x0a0d5c27"),
    "inet": ("192.0.2.1", "192.0.2.0/24", "10.1.2.3/8", "2001:db8::1", "::ffff:192.0.2.7", "127.0.0.1"),
    "cidr": ("192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32", "0.0.0.0/0"),
    "macaddr": ("08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"),
    "macaddr8": ("08:00:2b:01:02:03:04:05", "ff:ff:ff:ff:ff:ff:ff:ff"),
    "varbit": ("", "0", "1", "1010", "111100001111"),
    "point": ("(0,0)", "(1.5,-2)", "(1e3,1e-3)"),
    "line": ("{1,-1,0}", "{0,1,5}"),
    "lseg": ("[(0,0),(1,1)]", "[(1,2),(3,4.5)]"),
    "box": ("(1,1),(0,0)", "(3,4.5),(1,2)"),
    "path": ("[(0,0),(1,1),(2,0)]", "((0,0),(1,1),(2,0))"),
    "polygon": ("((0,0),(1,1),(2,0))", "((0,0),(0,4),(4,4),(4,0))"),
    "circle": ("<(0,0),1>", "<(1.5,2),0.5>"),
    "tsvector": ("", "'cat' 'dog':2", "'ate':3 'fat':2,11 'rat':12A"),
    "tsquery": ("'cat'", "'cat' & !'dog'", "'fat' <-> 'rat'"),
    "xml": ("<a/>", '<a b="c">d</a>', "text", "<p>Zoë &amp; co</p>"),
    "pg_lsn": ("0/0", "16/B374D848"),
    "oid": ("0", "1", "42"),
    "regclass": ("pg_class", "pg_type", "pg_catalog.pg_proc", "pg_index"),
    "regtype": ("integer", "text", "boolean", "timestamp with time zone"),
    "hstore": ("", "a=>1", '"A b"=>"c", d=>NULL'),
    "ltree": ("top", "top.science", "top.science.astronomy"),
    "cube": ("(1,2)", "(0,0),(1,1)"),
}  # fmt: skip

_ALIASES = {"varchar": "text", "bpchar": "text", "citext": "text", "name": "text", '"char"': "text", "char": "text"}
_NUMBERS = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8", "money", "oid"})

# Values for an unknown type, for instance from an extension. The server decides which are valid.
_GUESSES = (
    "", "0", "1", "1.5", "a", "abc", "{}", "[]", "(1,2)", "[1,2,3]", "{1,2}", "1-2", "a=>1", "2026-01-01", "192.0.2.1",
    "978-0-393-04002-9", "POINT(1 2)", "<a/>", "$",
)  # fmt: skip

_DAYS = 28
_MONTHS = 12


def pool(kind: Type, types: Mapping[int, Type], salt: int = 0) -> list[str]:
    """Return values of a type. The server may still refuse some. UUIDs differ for each ``salt``."""
    if kind.kind == "e":
        return list(kind.labels)
    if kind.kind == "d":
        return pool(types[kind.base], types, salt)
    if kind.kind == "c":
        return _rows([pool(field, types) for field in kind.fields])
    return _pool_of_ranges(kind, types) if kind.kind in "rm" else _pool_of_base(kind, types, salt)


def _pool_of_ranges(kind: Type, types: Mapping[int, Type]) -> list[str]:
    if kind.kind == "m":
        return ["{}", *(f"{{{each}}}" for each in pool(types[kind.subtype], types)[:8])]
    subtype = types[kind.subtype]
    points = [_quoted(value) for value in pool(subtype, types)[:6]]
    return ["empty", *(f"[{point},{point}]" for point in points), *_ranges(subtype.name)]


def _pool_of_base(kind: Type, types: Mapping[int, Type], salt: int) -> list[str]:
    width = max(1, kind.modifier)
    if kind.element:
        return _arrays(pool(types[kind.element], types, salt))
    if kind.name == "bit":
        return ["0" * width, "1" * width, ("10" * width)[:width], ("1" + "0" * width)[:width]]
    if kind.name == "uuid":
        return [uuid(number, salt) for number in range(12)]
    if kind.name == "numeric":
        return [*_POOLS["numeric"], *_edges(kind.modifier)]
    return [*_POOLS.get(_ALIASES.get(kind.name, kind.name), _GUESSES), *_filled(kind)]


def distinct(kind: Type, types: Mapping[int, Type], number: int, salt: int = 0) -> str | None:
    """Return the ``number``-th, from 0, of many different values, or None if the type has only those of its pool.

    Texts and UUIDs differ for each ``salt``, too.
    """
    if kind.kind == "d":
        return distinct(types[kind.base], types, number, salt)
    if kind.kind == "r":
        low, high = (_nth(types[kind.subtype].name, number * 3 + step) for step in (0, 2))
        return None if low is None or high is None else f"[{_quoted(low)},{_quoted(high)})"
    if kind.kind == "m" or (kind.kind == "b" and kind.element):
        inner = distinct(types[kind.subtype or kind.element], types, number, salt)
        return None if inner is None else f"{{{inner if kind.kind == 'm' else _quoted(inner)}}}"
    return _distinct_of_base(kind, number, salt) if kind.kind == "b" else None


def _distinct_of_base(kind: Type, number: int, salt: int) -> str | None:
    if kind.name == "uuid":
        return uuid(number, salt)
    if _ALIASES.get(kind.name, kind.name) == "text":
        return _text(number, length_of(kind), salt)
    if kind.name == "bit":
        return format(number, "b").zfill(max(1, kind.modifier))
    return _nth(kind.name, number)


def _nth(name: str, number: int) -> str | None:
    """Return the ``number``-th value of a type, in ascending order if the type has one."""
    day = f"{2001 + number // (_MONTHS * _DAYS)}-{number // _DAYS % _MONTHS + 1:02}-{number % _DAYS + 1:02}"
    clock = f"{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
    makers: Mapping[str, Callable[[], str]] = {
        "date": lambda: day,
        "timestamp": lambda: f"{day} {clock}.5",
        "timestamptz": lambda: f"{day} {clock}.5+00",
        "time": lambda: clock,
        "timetz": lambda: f"{clock}+00",
        "interval": lambda: f"{number} hours",
        "bytea": lambda: f"\\x{number:08x}ff",
        "inet": lambda: f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        "cidr": lambda: f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32",
        "macaddr": lambda: f"08:00:2b:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
        "macaddr8": lambda: f"08:00:2b:01:02:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
        "jsonb": lambda: f'{{"n": {number}}}',
        "varbit": lambda: format(number, "b"),
        "point": lambda: f"({number},{-number})",
        "circle": lambda: f"<({number * 3},0),1>",
        "box": lambda: f"({number * 3},0),({number * 3 + 1},1)",
        "tsvector": lambda: f"'n{number}'",
        "ltree": lambda: f"top.n{number}",
        "hstore": lambda: f"n=>{number}",
        "pg_lsn": lambda: f"0/{number:X}",
    }
    if name in _NUMBERS:
        return str(number + 1)
    return makers[name]() if name in makers else None


def is_text(kind: Type, types: Mapping[int, Type]) -> bool:
    """Return whether it is a text type, or a domain of one."""
    while kind.kind == "d":
        kind = types[kind.base]
    return kind.kind == "b" and _ALIASES.get(kind.name, kind.name) == "text"


def _text(number: int, length: int | None, salt: int) -> str:
    """Return a text within a length that differs for each number and salt, regardless of case."""
    digits = "abcdefghijklmnopqrstuvwxyz0123456789"
    if length is not None and length <= len("Name 000"):
        short = ""
        while number or not short:
            number, rest = divmod(number, len(digits))
            short = digits[rest] + short
        return short
    forms = ("User{}@Example.com", "name-{}", "Ünï {}", "Name {}", "n{}", "{}", " {} x", "O'{}")
    text = forms[number % len(forms)].format(f"{number}{tag(salt)}" if salt else number)
    return text if length is None or len(text) <= length else f"n{number}"


def length_of(kind: Type) -> int | None:
    """Return the length of a varchar or char, which is its modifier less four."""
    if kind.name == "name":
        return 63
    if kind.name == "char":
        return 1
    return kind.modifier - 4 if kind.name in {"varchar", "bpchar"} and kind.modifier >= 0 else None


def _filled(kind: Type) -> list[str]:
    """Return texts of the column's full length."""
    most = length_of(kind)
    if most is None:
        return []
    return ["W" * most, ("Ab" * most)[:most], *(text[:most] for text in _TEXTS if len(text) > most)]


def _edges(modifier: int) -> list[str]:
    """Return the largest and the finest numbers of numeric(precision, scale)."""
    if modifier < 0:
        return []
    # PostgreSQL stores the scale as a signed number of 11 bits.
    precision, scale = (modifier - 4) >> 16, (((modifier - 4) & 0x7FF) ^ 0x400) - 0x400
    whole = "9" * max(0, precision - scale) or "0"
    fraction = "9" * max(0, scale)
    largest = f"{whole}.{fraction}" if fraction else whole + "0" * max(0, -scale)
    finest = f"0.{'0' * (scale - 1)}1" if scale > 0 else "1"
    return [largest, f"-{largest}", finest]


def _quoted(value: str) -> str:
    """Return a value quoted for an array, a range or a row."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _ranges(subtype: str) -> list[str]:
    values = [_nth(subtype, number) for number in (0, 4, 9, 30)]
    found = [_quoted(value) for value in values if value is not None]
    if not found:
        return []
    return [f"[{found[0]},{found[1]})", f"({found[1]},{found[3]}]", f"[{found[2]},)", f"(,{found[0]})"]


def _arrays(values: Sequence[str]) -> list[str]:
    inner = [_quoted(value) for value in values]
    found = ["{}", "{NULL}"]
    for size in (1, 2, 3):
        found += [f"{{{','.join(inner[at : at + size])}}}" for at in range(0, min(len(inner), 8), size)]
    return found


def _rows(fields: Sequence[Sequence[str]]) -> list[str]:
    few = [list(values[:3]) for values in fields]
    rows = [f"({','.join(_quoted(value) for value in each)})" for _, each in zip(range(8), product(*few), strict=False)]
    return [*rows, f"({',' * (len(fields) - 1)})"]


_STRING = re.compile(r"'((?:[^']|'')*)'")
_NUMBER = re.compile(r"(?<![\w.'])-?\d+(?:\.\d+)?(?![\w.'])")
_REGEX = re.compile(r"~\*?\s*'((?:[^']|'')*)'")
_LONGEST_TEXT = 300
_MODEST = 10_000


def mined(expression: str, kind: Type, types: Mapping[int, Type]) -> list[str]:
    """Return the values in a constraint's expression, and their neighbours."""
    while kind.kind == "d":
        kind = types[kind.base]
    strings = [text.replace("''", "'") for text in _STRING.findall(expression)]
    numbers = [float(number) for number in _NUMBER.findall(_STRING.sub("", expression))]
    numbers += [float(text) for text in strings if _NUMBER.fullmatch(text)]
    found = list(strings)
    if kind.name in _NUMBERS:
        found += _mined_numbers(numbers)
    elif _ALIASES.get(kind.name, kind.name) == "text":
        found += _mined_texts(expression, strings, numbers)
    elif kind.element:
        inner = mined(expression, types[kind.element], types)
        found += [f"{{{_quoted(each)}}}" for each in inner] + _arrays(inner)[2:]
    elif kind.name in {"json", "jsonb"}:
        found += _mined_documents(strings)
    return list(dict.fromkeys(found))


def _mined_numbers(numbers: Sequence[float]) -> list[str]:
    near = [_plain(number + step) for number in numbers for step in (0, 1, -1, 0.5)]
    between = [_plain((low + high) / 2) for low, high in zip(sorted(numbers), sorted(numbers)[1:], strict=False)]
    return near + between


def _mined_texts(expression: str, strings: Sequence[str], numbers: Sequence[float]) -> list[str]:
    """Return texts for patterns of LIKE, for regular expressions, and of each length."""
    found = [text.replace("%", filling).replace("_", "x") for text in strings for filling in ("", "abc")]
    for pattern in _REGEX.findall(expression):
        found += examples(pattern.replace("''", "'"))
    lengths = {int(number) + step for number in numbers for step in (-1, 0, 1)}
    found += ["Az" * (length // 2) + "q" * (length % 2) for length in sorted(lengths) if 0 < length <= _LONGEST_TEXT]
    return found + ["0123456789"[: int(number)] for number in numbers if 0 < number <= 10]  # noqa: PLR2004 - digits


def _mined_documents(keys: Sequence[str]) -> list[str]:
    found = [f'{{"{key}": {value}}}' for key in keys for value in ('"x"', "1", "[]", "true")]
    if len(keys) > 1:
        found.append("{" + ", ".join(f'"{key}": "x"' for key in dict.fromkeys(keys)) + "}")
    return found


def is_extreme(value: str) -> bool:
    """Return whether a value is a number with which harmless arithmetic may exceed the range of the type."""
    return _NUMBER.fullmatch(value) is not None and abs(float(value)) > _MODEST


def tamed(found: Sequence[str]) -> list[str]:
    """Return the values that harmless code accepts: none extreme or empty, and no two that differ only in case."""
    kept = {value.strip().lower(): value for value in reversed(found) if value.strip() and not is_extreme(value)}
    return [value for value in reversed(kept.values()) if len(value) < _LONGEST_TEXT]


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def examples(pattern: str) -> list[str]:
    """Return texts that match a regular expression of common constructs. The server checks them."""
    texts = []
    for seed in range(6):
        try:
            text, _ = _alternatives(pattern.replace("\\A", "^").replace("\\Z", "$"), 0, seed)
        except (IndexError, ValueError):
            break
        texts.append(text)
    return list(dict.fromkeys(texts))


_CLASSES = {"d": "0123456789", "w": "abcXYZ09_", "s": " ", "S": "ab9", "D": "abz", "W": "-."}
_NAMED = {
    "alpha": "abcXYZ", "digit": "0123456789", "alnum": "abcXYZ019", "lower": "abcxyz", "upper": "ABCXYZ", "space": " ",
    "punct": ".-_", "xdigit": "0189abcdef",
}  # fmt: skip


def _alternatives(pattern: str, at: int, seed: int) -> tuple[str, int]:
    """Return one branch's text up to the end of the pattern or group, and the position of that end."""
    branches = []
    while True:
        text, at = _sequence(pattern, at, seed)
        branches.append(text)
        if at >= len(pattern) or pattern[at] == ")":
            return branches[seed % len(branches)], at
        at += 1


def _sequence(pattern: str, at: int, seed: int) -> tuple[str, int]:
    text = ""
    while at < len(pattern) and pattern[at] not in "|)":
        begin = at
        if pattern[at] in "^$":
            at += 1
            continue
        _, at = _atom(pattern, at, seed)
        low, high, at = _repeats(pattern, at)
        text += "".join(_atom(pattern, begin, seed + each)[0] for each in range(low + seed % (high - low + 1)))
    return text, at


def _repeats(pattern: str, at: int) -> tuple[int, int, int]:
    """Return the minimum and maximum number of repetitions, and the position after the quantifier."""
    sign = pattern[at : at + 1]
    if sign == "{":
        end = pattern.index("}", at)
        low, comma, high = pattern[at + 1 : end].partition(",")
        least = int(low or 0)
        most = least if not comma else min(int(high), least + 3) if high else least + 3
        at = end + 1
    elif sign and sign in "*+?":
        least = int(sign == "+")
        most = 1 if sign == "?" else 3
        at += 1
    else:
        return 1, 1, at
    return least, most, at + pattern.startswith("?", at)


def _atom(pattern: str, at: int, seed: int) -> tuple[str, int]:
    sign = pattern[at]
    if sign == "(":
        at += 1
        if pattern.startswith("?:", at):
            at += 2
        text, at = _alternatives(pattern, at, seed)
        return text, at + 1
    if sign == "[":
        return _bracket(pattern, at, seed)
    if sign == "\\":
        choices = _CLASSES.get(pattern[at + 1], pattern[at + 1])
        return choices[seed % len(choices)], at + 2
    return ("aB1"[seed % 3] if sign == "." else sign), at + 1


def _bracket(pattern: str, at: int, seed: int) -> tuple[str, int]:
    at += 1
    negated = pattern[at] == "^"
    at += negated
    choices, first = "", at
    while pattern[at] != "]" or at == first:
        if pattern.startswith("[:", at):
            end = pattern.index(":]", at)
            choices += _NAMED.get(pattern[at + 2 : end], "a")
            at = end + 2
        elif pattern[at] == "\\":
            choices += _CLASSES.get(pattern[at + 1], pattern[at + 1])
            at += 2
        elif pattern[at + 1] == "-" and pattern[at + 2] != "]":
            choices += "".join(chr(code) for code in range(ord(pattern[at]), ord(pattern[at + 2]) + 1))
            at += 3
        else:
            choices += pattern[at]
            at += 1
    if negated:
        choices = "".join(each for each in "aZ9 _-.x" if each not in choices) or "?"
    return choices[seed * 7 % len(choices)], at + 1
