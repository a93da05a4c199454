"""Keeps secrets out of whatever the function logs, raises or returns.

A library may write a password in many ways: in a URL, quoted for SQL, as JSON within JSON, in capitals. Letters and
digits stay as they are in all of them, so they are what a concealed secret is searched by, in any case. Between them
any escape is accepted. In base64 and hexadecimal, the same letters and digits always give the same text, too. Where
letters and digits are escaped themselves, such as "=61", the text is searched once more without its escapes.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.entities import codepoint2name
from itertools import groupby, takewhile
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import quote

REDACTED = "***"
# The value of a variable with such a name may be a secret.
SECRET_NAME = re.compile(
    r"SECRET|PASS|PWD|TOKEN|KEY|CREDENTIAL|AUTH(?!ORS?(?![A-Z]))|SALT|PRIVATE|LICEN[CS]E|SIGNATURE", re.IGNORECASE
)

# Shorter secrets would blank out half of every line, and are easy to guess.
_SHORTEST_SECRET = 3
# An execution environment that migrates a fleet reads thousands of secrets, and a line can only hold one in use.
_CONCEALED_AT_MOST = 100

# A literal of SQL: E'text', 'text', $$text$$ or $tag$text$tag$. It may be cut off.
_LITERAL = r"(?:e'(?:[^'\\]|''|\\.)*(?:'|$)|(?:u&)?'(?:[^']|'')*(?:'|$)|\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|$))"
# The value after "password=": quoted within a literal, with its quotes doubled or escaped; a literal; or a word.
_VALUE = rf"(?:''(?=[^\s,;)'])[^']*''|\\+'(?:[^'\\]|\\[^'])*\\+'|{_LITERAL}|(?:\\.|[^\s'\";,)\\])+)"

# Texts that are secrets in any place, even if the function never read them.
_ALWAYS = (
    # The login in an address.
    (re.compile(r"://[^\s/@:'\"]*:[^\s'\"]{0,2048}@"), f"://{REDACTED}@"),
    # A role's password, or that of a user mapping, in a statement.
    (re.compile(rf"(\bpassword\s+){_LITERAL}", re.IGNORECASE | re.DOTALL), rf"\1'{REDACTED}'"),
    # The password in a connection string of libpq, also in a literal, or in an UPDATE.
    (re.compile(rf"(\b(?:ssl)?password\s*=\s*){_VALUE}", re.IGNORECASE | re.DOTALL), rf"\1{REDACTED}"),
    # A signature of AWS, such as an IAM token of RDS is.
    (
        re.compile(r"(X-Amz-(?:Signature|Security-Token|Credential)(?:=|%(?:25)*3D))[^\s&'\"\\]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
)
# Most texts hold none of these, which takes a twentieth of the time to see that a pattern takes.
_HINTS = ("://", "password", "x-amz-")

_QUOTES = "\\'\""
# What a character that is neither letter nor digit may become, escaped once or several times. It begins with
# punctuation; then come punctuation, hexadecimal digits, and the letters of "\x", "\u", "\n" and of HTML's entities.
_ESCAPE = r"[^A-Za-z0-9{space}](?:[^A-Za-z0-9{space}]|[0-9A-Fa-fxuUnrtv]|amp|quot|apos|lt|gt){{0,{most}}}?"
_LONGEST_ESCAPE = 30
# Three levels of escaping double a backslash to eight. Each repetition has a limit, so that no line takes long.
_DEEPEST = 16
# Shorter parts of a secret stand in many a text in base64 or hexadecimal by chance.
_SHORTEST_ENCODED = 8
_SHORTEST_IN_HEXADECIMAL = 4
# With the escapes of a slash and of a line break.
_BASE64 = rf"{string.ascii_letters}{string.digits}+/-_=\%"
_URL_SAFE = str.maketrans("+/", "-_")
_HEXADECIMAL = string.hexdigits
# A shorter run of letters and digits appears in many texts by chance. Between such runs, only plain spellings count.
_SHORTEST_ANCHOR = 4
# A line break or a cut divides a secret. A part of at least half of it is redacted, so the rest cannot be completed.
_SHORTEST_DIVIDED = 12
# Longer ones are keys and tokens of several lines, each of which is a secret of its own. The search takes its square.
_LONGEST_DIVIDED = 2048
# The name of a secret in AWS shares its first half with those of all others.
_NAME_IN_AWS = "arn:"
# Half of a password may be an ordinary word, such as the database's name. Half of a random one is mixed.
_MIXED = re.compile(r"^(?=.*[a-z])(?=.*[A-Z0-9])", re.DOTALL)
# Where a line break or a cut may have divided a secret. A name that begins like a secret goes on there.
_DIVIDERS = ("\r", "\n", "\\r", "\\n", "...")

# One character of ASCII, escaped: in a URL or quoted-printable, in C, JSON or JavaScript, in octal, in HTML.
_ESCAPED = re.compile(
    rf"(?:%(?:25)*|=|\\{{1,{_DEEPEST}}}x|\\{{1,{_DEEPEST}}}u(?:00|\{{0{{0,4}}))(?P<hex>[2-7][0-9a-f])\}}?"
    rf"|\\{{1,{_DEEPEST}}}(?P<octal>[01]?[0-7][0-7])"
    r"|&(?:amp;)*#0{0,5}(?P<decimal>[0-9]{2,3});?|&(?:amp;)*#x0{0,5}(?P<html>[2-7][0-9a-f]);?"
    rf"|\\{{1,{_DEEPEST}}}(?P<slash>/)",
    re.IGNORECASE,
)
_ESCAPE_HINTS = ("%", "=", "\\", "&")
_BASES = {"hex": 16, "html": 16, "octal": 8, "decimal": 10}
# A list of octets, such as "68:75:6e", "0x68 0x75" or "[104, 117, 110]".
_OCTET_LIST = re.compile(
    r"(?<![0-9A-Za-z])(?:(?:0x)?[0-9a-f]{2}(?:[:\s-](?:0x)?[0-9a-f]{2}|,\s?0x[0-9a-f]{2}){7,}"
    r"|[0-9]{2,3}(?:,\s?[0-9]{2,3}){7,})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_DEEPEST_ESCAPE = 3


class _Block(NamedTuple):
    """A quarter of a text, in lower case, that finds at least half of it. ``start`` is its place in ``whole``."""

    text: str
    whole: str
    start: int

    def redact(self, text: str) -> str:
        """Return the text without each part that a cut left of the whole: at least half of it, and no plain word."""
        lower, at = text.lower(), 0
        while (found := lower.find(self.text, at)) >= 0:
            before = _common(reversed(lower[max(0, found - self.start) : found]), reversed(self.whole[: self.start]))
            after = _common(lower[found : found + len(self.whole)], self.whole[self.start :])
            first, last, at = found - before, found + after, found + 1
            begins = before == self.start or first == 0 or text.endswith(_DIVIDERS, 0, first)
            whole_end = self.start + after == len(self.whole)
            ends = whole_end or last == len(text) or text.startswith(_DIVIDERS, last)
            is_half = (last - first) * 2 >= len(self.whole)
            # Some characters have a longer lower case. Then the places in both texts differ.
            if begins and ends and is_half and len(lower) == len(text) and _MIXED.search(text[first:last]):
                text = f"{text[:first]}{REDACTED}{text[last:]}"
                lower, at = text.lower(), first + len(REDACTED)
        return text


def _common(one: Iterable[str], other: Iterable[str]) -> int:
    """Return how many characters are equal at the beginning of both."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass(frozen=True)
class _Secret:
    """``anchor`` is the longest run of letters and digits, in lower case, which every spelling of the secret contains.

    ``encoded`` are the parts of a text in base64 that only this secret makes, and ``hexadecimal`` those in hexadecimal.
    ``blocks`` divide each text that may be printed in two parts: any half of it contains one of them.
    """

    text: str
    anchor: str
    spellings: re.Pattern[str]
    encoded: tuple[str, ...]
    hexadecimal: tuple[str, ...]
    blocks: tuple[_Block, ...]

    def is_in(self, text: str, lower: str) -> bool:
        """Return whether the text may hold the secret. ``lower`` is the text in lower case."""
        return (
            self.anchor in lower
            or any(part in text for part in self.encoded)
            or any(part in lower for part in self.hexadecimal)
            or any(block.text in lower for block in self.blocks)
        )

    def redact(self, text: str) -> str:
        lower = text.lower()
        if self.anchor in lower:
            text = self.spellings.sub(REDACTED, text)
        for part in self.encoded:
            text = _without_run(text, re.escape(part), _BASE64)
        for part in self.hexadecimal:
            if part in lower:
                text = _without_run(text, f"(?i:{part})", _HEXADECIMAL)
        return text

    def redact_halves(self, text: str) -> str:
        """Return the text without what is left of the secret where a line break or a cut divided it."""
        for block in self.blocks:
            text = block.redact(text)
        return text


_lock = Lock()
# Replaced as a whole, so that readers need no lock; the one concealed last is at the end.
_secrets: tuple[_Secret, ...] = ()
# The secrets of the execution environment, which are always in use.
_lasting: tuple[_Secret, ...] = ()


def conceal(secret: str) -> None:
    """Redact this text from now on, in each spelling that a library may give it."""
    global _secrets  # noqa: PLW0603 - the function's one list of secrets
    if len(secret) < _SHORTEST_SECRET or any(known.text == secret for known in _secrets[-1:]):
        return
    new = _secret(secret)
    with _lock:
        others = tuple(known for known in _secrets if known.text != secret)
        _secrets = (*others, new)[-_CONCEALED_AT_MOST:]


def conceal_for_good(secrets: Iterable[str]) -> None:
    """Redact these texts for the life of the execution environment, in place of the last call's."""
    global _lasting  # noqa: PLW0603 - as in `conceal`
    texts = (text for secret in secrets for text in (secret, *_lines(secret)))
    wanted = tuple(dict.fromkeys(text for text in texts if len(text) >= _SHORTEST_SECRET))
    if wanted != tuple(known.text for known in _lasting):
        _lasting = tuple(map(_secret, wanted))


def _lines(secret: str) -> list[str]:
    """Return the lines of a secret that has several, such as a key in PEM: each one is logged for itself."""
    lines = re.split(r"[\r\n]+|\\n", secret)
    return [line.strip() for line in lines if len(line) >= _SHORTEST_ENCODED] if len(lines) > 1 else []


def forget_all_but(secret: str) -> None:
    """Forget every secret that was concealed for a time, except for this one."""
    global _secrets  # noqa: PLW0603 - as in `conceal`
    with _lock:
        _secrets = tuple(known for known in _secrets if known.text == secret)
    # Its cache holds the patterns, which hold the secrets.
    re.purge()


def _secret(text: str) -> _Secret:
    anchor = max(re.findall(r"[A-Za-z0-9]+", text), key=len, default="")
    pattern = _pattern(text, loose=len(anchor) >= _SHORTEST_ANCHOR)
    # Around its longest run of letters and digits, a secret may be escaped before it is encoded.
    alike = {anchor} if len(anchor) >= _SHORTEST_ENCODED else {text, quote(text, safe="", errors="replace")}
    octets = sorted(each.encode("utf-8", "surrogatepass") for each in alike)
    return _Secret(
        text,
        anchor.lower(),
        re.compile(pattern, re.DOTALL | re.IGNORECASE),
        tuple(dict.fromkeys(part for each in octets for part in _in_base64(each))),
        tuple(each.hex() for each in octets if len(each) >= _SHORTEST_IN_HEXADECIMAL),
        tuple(_blocks(text.lower())),
    )


def _blocks(whole: str) -> Iterator[_Block]:
    """Yield blocks of a text, so that each half of it contains one of them whole."""
    size = len(whole) // 4
    if _SHORTEST_DIVIDED <= len(whole) <= _LONGEST_DIVIDED and not whole.startswith(_NAME_IN_AWS):
        yield from (_Block(whole[at : at + size], whole, at) for at in range(0, len(whole) - size + 1, size))


def _in_base64(octets: bytes) -> Iterator[str]:
    """Yield the base64 forms of these octets for any offset, without the characters that they share with others."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + octets)
        end = len(encoded) - (4 if (before + len(octets)) % 3 else 0)
        part = encoded[4 if before else 0 : end].decode()
        if len(part) >= _SHORTEST_ENCODED:
            yield part
            yield part.translate(_URL_SAFE)


def _without_run(text: str, part: str, characters: str) -> str:
    """Return the text without each run of these characters that holds a part of a secret."""
    redacted_text, end = [], 0
    for found in re.finditer(part, text):
        if found.start() < end:
            continue
        start, stop = found.span()
        while start > end and text[start - 1] in characters:
            start -= 1
        while stop < len(text) and text[stop] in characters:
            stop += 1
        redacted_text += [text[end:start], REDACTED]
        end = stop
    return "".join((*redacted_text, text[end:]))


def _pattern(secret: str, *, loose: bool) -> str:
    """Return a pattern for a secret. If it is loose, any escape may stand between two runs of letters and digits."""
    if not loose:
        return _spellings(secret)
    start, *pieces, end = re.split(r"([A-Za-z0-9]+)", secret)
    between = [piece if at % 2 == 0 else _escaped(piece) for at, piece in enumerate(pieces)]
    return f"(?:{_spellings(start)})?{''.join(between)}(?:{_spellings(end)})?"


def _escaped(separator: str) -> str:
    space = "" if any(map(str.isspace, separator)) else r"\s"
    return _ESCAPE.format(space=space, most=_LONGEST_ESCAPE * len(separator))


def _spellings(text: str) -> str:
    """Return a pattern for a text, however its characters are escaped.

    A run of quotes and backslashes, or of white space, is one unit: libraries double, join and drop them.
    """
    units = []
    for kind, characters in groupby(text, _kind):
        group = list(characters)
        if kind is None:
            units += [rf"\\{{0,{_DEEPEST}}}(?:{_spelling(character)})" for character in group]
        else:
            # No character may match in two ways: a run of them would then match in a power of two ways.
            either = "|".join(dict.fromkeys(map(_escapes, group)))
            units.append(rf"(?:{kind}|{either}){{1,{_DEEPEST * len(group)}}}")
    return "".join(units)


def _kind(character: str) -> str | None:
    """Return the pattern that such characters may become, or None if each stays itself."""
    if character in _QUOTES:
        return r"[\\'\"]"
    return rf"\s|\+|\\{{1,{_DEEPEST}}}[nrtfv]" if character.isspace() else None


def _spelling(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    itself = f"%{{1,{_DEEPEST}}}" if character == "%" else re.escape(character)
    return f"{itself}|{_escapes(character)}"


def _escapes(character: str) -> str:
    code = ord(character)
    octets = character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass")
    name = "apos" if character == "'" else codepoint2name.get(code)
    return "|".join(
        (
            # In a URL, encoded once or several times.
            "".join(rf"%(?:25)*(?i:{octet:02x})" for octet in octets),
            # As JSON and Python write it.
            "".join(rf"\\{{1,{_DEEPEST}}}u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2)),
            rf"\\{{1,{_DEEPEST}}}(?:U(?i:{code:08x})|x(?i:{code:02x})|0*{code:o})",
            # In HTML.
            rf"&(?:amp;)*(?:#0*{code}|#[xX]0*(?i:{code:x}){f'|{name}' if name else ''});?",
        )
    )


def redact(text: str) -> str:
    """Return the text without concealed secrets, and without texts that are secrets in any place."""
    lower = text.lower()
    for secret in reversed((*_lasting, *_secrets)):
        if secret.is_in(text, lower):
            text = secret.redact(text)
            lower = text.lower()
    # Only now: another secret may have a part of this one.
    for secret in (*_lasting, *_secrets):
        text = secret.redact_halves(text)
    for plain in _unescaped(text):
        if _holds_secret(plain) and (without := redact(plain)) != plain:
            return without
    if _is_suspicious(text):
        for pattern, replacement in _ALWAYS:
            text = pattern.sub(replacement, text)
    return text


def _unescaped(text: str) -> Iterator[str]:
    """Yield the text with one more level of escapes removed each time, while there are any."""
    for _ in range(_DEEPEST_ESCAPE):
        # Most lines have none, and the search takes longer than all others.
        has_escapes = any(hint in text for hint in _ESCAPE_HINTS)
        plain = _ESCAPED.sub(_escaped_character, text) if has_escapes else text
        plain = _OCTET_LIST.sub(_listed_octets, plain)
        if plain == text:
            return
        yield plain
        text = plain


def _escaped_character(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    code = int(found[kind], _BASES[kind]) if kind in _BASES else ord(found[kind])
    return chr(code) if _is_printable(code) else found[0]


def _listed_octets(found: re.Match[str]) -> str:
    is_decimal = "," in found[0] and "x" not in found[0].lower()
    codes = [int(each, 10 if is_decimal else 16) for each in re.split(r"[^0-9A-Fa-fxX]+", found[0])]
    return "".join(chr(code) if _is_printable(code) else f"%{code:02x}" for code in codes)


def _is_printable(code: int) -> bool:
    return 0x20 <= code < 0x7F  # noqa: PLR2004 - ASCII


def _holds_secret(text: str) -> bool:
    lower = text.lower()
    return any(secret.is_in(text, lower) for secret in (*_lasting, *_secrets))


def one_line(error: BaseException | str, *, limit: int = 2000) -> str:
    """Return a message that may be logged: without secrets, on one line, at most ``limit`` characters."""
    # Redacted before white space is joined, because a secret may hold some, and after, because joining may form one.
    text = redact(" ".join(redact(str(error)).split()))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def may_hold_secret(text: str) -> bool:
    """Return whether a text may hold a secret. The check is fast, and a negative answer is always right."""
    return _is_suspicious(text) or _holds_secret(text) or any(map(_holds_secret, _unescaped(text)))


def _is_suspicious(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def redacted(value: Any) -> Any:  # noqa: ANN401 - any value of a log line
    """Return a value of JSON with each text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redacted(key): redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    return value
