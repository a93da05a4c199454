"""Keeps secrets out of whatever the function logs, raises or returns.

A library may write a password in many ways: in a URL, quoted for SQL, as JSON within JSON. Letters and digits stay as
they are in all of them, so they are what a concealed secret is searched by. Between them any escape is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.entities import codepoint2name
from itertools import groupby
from threading import Lock
from typing import Any

REDACTED = "***"

# Shorter secrets would blank out half of every line, and protect nobody.
_SHORTEST_SECRET = 3
# A sandbox that serves a fleet reads thousands of secrets, and a line can only hold one that is in use.
_CONCEALED_AT_MOST = 100

# A literal of SQL: E'text', 'text', $$text$$ or $tag$text$tag$. It may be cut off.
_LITERAL = r"(?:e'(?:[^'\\]|''|\\.)*(?:'|$)|(?:u&)?'(?:[^']|'')*(?:'|$)|\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|$))"
# The value after "password=": quoted within a literal, with its quotes doubled or escaped; a literal; or a word.
_VALUE = rf"(?:''(?=[^\s,;)'])[^']*''|\\+'(?:[^'\\]|\\[^'])*\\+'|{_LITERAL}|(?:\\.|[^\s'\";,)\\])+)"

# What is a secret wherever it stands, also one that the function never read.
_ALWAYS = (
    # The login in an address.
    (re.compile(r"://[^\s/@:'\"]*:[^\s'\"]*@"), f"://{REDACTED}@"),
    # A role's password, or that of a user mapping, in a statement.
    (re.compile(rf"(\bpassword\s+){_LITERAL}", re.IGNORECASE | re.DOTALL), rf"\1'{REDACTED}'"),
    # The password in a connection string of libpq, also one that stands in a literal, or that an UPDATE sets.
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
# A shorter run of letters and digits stands in many a text by chance; between such runs only plain spellings count.
_SHORTEST_ANCHOR = 4


@dataclass(frozen=True)
class _Secret:
    """``anchor`` is the longest run of letters and digits, which every spelling of the secret contains."""

    text: str
    anchor: str
    spellings: re.Pattern[str]

    def redact(self, text: str) -> str:
        return self.spellings.sub(REDACTED, text) if self.anchor in text else text


_lock = Lock()
# Replaced as a whole, so that readers need no lock; the one concealed last is at the end.
_secrets: tuple[_Secret, ...] = ()


def conceal(secret: str) -> None:
    """Redact this text from now on, in each spelling that a library may give it."""
    global _secrets  # noqa: PLW0603 - the function's one list of secrets
    if len(secret) < _SHORTEST_SECRET or any(known.text == secret for known in _secrets[-1:]):
        return
    anchor = max(re.findall(r"[A-Za-z0-9]+", secret), key=len, default="")
    new = _Secret(secret, anchor, re.compile(_pattern(secret, loose=len(anchor) >= _SHORTEST_ANCHOR), re.DOTALL))
    with _lock:
        others = tuple(known for known in _secrets if known.text != secret)
        _secrets = (*others, new)[-_CONCEALED_AT_MOST:]


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
    """Return what else may stand for a run of such characters, None if each stands for itself."""
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
    """Return the text without concealed secrets, and without what is a secret wherever it stands."""
    for secret in reversed(_secrets):
        text = secret.redact(text)
    if _is_suspicious(text):
        for pattern, replacement in _ALWAYS:
            text = pattern.sub(replacement, text)
    return text


def one_line(error: BaseException | str, *, limit: int = 2000) -> str:
    """Return a message that may be logged: without secrets, on one line, at most ``limit`` characters."""
    # Redacted before white space is joined, because a secret may hold some, and after, because joining may form one.
    text = redact(" ".join(redact(str(error)).split()))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def may_hold_secret(text: str) -> bool:
    """Return whether a text may hold a secret: a quick look, which is right if it says no."""
    return _is_suspicious(text) or any(secret.anchor in text for secret in _secrets)


def _is_suspicious(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def redacted(value: Any) -> Any:  # noqa: ANN401 - whatever a log line may hold
    """Return a value of JSON with each text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redacted(key): redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    return value
