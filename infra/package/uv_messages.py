"""Reads uv's errors: the distributions without a wheel, the place that refused access, and the conflict in a line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

    from infra.package.errors import PackageError

_LONGEST = 400
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_WITHOUT_WHEELS = (
    re.compile(rf"Wheels are required for `({_NAME})`"),
    re.compile(rf"we only found wheels for `({_NAME})`"),
    re.compile(rf"(?:all versions of )?({_NAME})(?:[=<>~!][^ ]*)? ha(?:s|ve) no (?:usable )?wheels"),
)
# Messages of git and ssh about a repository without access, or one that they cannot reach.
_GIT = re.compile(
    r"Git operation failed|failed to (?:clone|fetch)\b(?!:)|git executable not found|could not read Username"
    r"|Permission denied \(publickey|Host key verification failed",
    re.IGNORECASE,
)
_REPOSITORY = re.compile(r"(?:git\+)?((?:https?|ssh|git|file)://[^\s`'\"()]+)")
_URL = re.compile(r"https?://[^\s`'\"()]+")
_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3}) ([^)]*)\)")
_REFUSED = re.compile(
    r"An index URL \((\S+)\) could not be queried due to a lack of valid authentication credentials \((\d{3}) ([^)]*)\)"
)
_UNREACHED = re.compile(
    r"error sending request|dns error|Connection refused|tcp connect error|operation timed out|invalid peer certificate"
    r"|Failed to fetch|Request failed",
    re.IGNORECASE,
)
_NO_ACCESS = frozenset({"401", "403"})


def names_without_wheels(error: PackageError) -> list[str]:
    """Return the distributions without a wheel for the platform, with uv's spelling of their names."""
    text = error.details or str(error)
    return list(dict.fromkeys(name for pattern in _WITHOUT_WHEELS for name in pattern.findall(text)))


def place_that_failed(error: PackageError) -> str | None:
    """Return the error of an index or a repository in one line, or None for another error."""
    text = " ".join((error.details or str(error)).split())
    if _GIT.search(text):
        return _about_git(text)
    if refused := _REFUSED.search(text):
        return _about_access(refused[1], f"{refused[2]} {refused[3]}")
    status = _STATUS.search(text)
    url = _URL.search(text)
    if url is None or not (status or _UNREACHED.search(text)):
        return None
    host = urlsplit(url[0]).hostname
    if status and status[1] in _NO_ACCESS:
        return _about_access(url[0], f"{status[1]} {status[2]}")
    why = f"answers {status[1]} {status[2]}" if status else "cannot be reached"
    return f"the index {host} {why}; check the index in the settings of uv or pip, and the network"


def _about_access(url: str, status: str) -> str:
    return (
        f"the index {urlsplit(url).hostname} refuses access ({status}); give uv the login: UV_INDEX_<NAME>_USERNAME and"
        " UV_INDEX_<NAME>_PASSWORD for an index with a name, or ~/.netrc"
    )


def _about_git(text: str) -> str:
    found = _REPOSITORY.search(text)
    repository = without_login(found[1].rstrip(".,;")) if found else "a repository"
    if "git executable not found" in text.lower():
        return f"{repository} cannot be read: there is no git on this machine; install it"
    if "Host key verification failed" in text:
        return f"git does not know the host key of {repository}; add it to ~/.ssh/known_hosts"
    if "could not read Username" in text or "Authentication failed" in text:
        return f"{repository} wants a login; give git one: a credential helper, ~/.netrc, or `url.<base>.insteadOf`"
    if "Permission denied" in text:
        return f"{repository} refuses the SSH key; load a key that may read it into ssh-agent"
    return f"git cannot read {repository}; check that it exists, that it has this commit, and that it can be reached"


def without_login(url: str) -> str:
    """Return an address without the user and the password in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", lambda found: "git@" if found[0] == "git@" else "", url)


def conflict(error: PackageError) -> str:
    """Return the contradicting requirements, without the resolver's proof."""
    text = re.sub(r"^No solution found.*?: ", "", str(error)).removeprefix("cause: ")
    text = text.removeprefix("No solution found when resolving dependencies ").lstrip("╰─▶ ")
    text, _, hints = text.partition(" hint: ")
    if len(text) <= _LONGEST:
        return text
    # The proof begins with the contradicting pair, and ends with its consequences.
    sentences = re.split(r"(?<=\.) (?=And|Because|$)", text)
    first = sentences[0].partition(", we can conclude")[0].removeprefix("cause: ")
    shown = _cut(re.sub(r"^Because ", "", first))
    last = _cut(sentences[-1])
    return f"{shown}; {last}" if len(shown) + len(last) < _LONGEST else f"{shown}{f' ({_cut(hints)})' if hints else ''}"


def listed(names: Collection[str], most: int = 10) -> str:
    """Return names for a message."""
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST // 2 else f"{text[: _LONGEST // 2].rpartition(' ')[0]} ..."
