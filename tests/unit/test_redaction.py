"""Redaction removes secrets in any form in which a library writes them."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.invocation.errors import MigrationFailed
from lambda_migrate.invocation.redaction import REDACTED, conceal, conceal_for_good, forget_all_but, one_line, redact

if TYPE_CHECKING:
    from collections.abc import Callable

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "URL": lambda text: quote(text, safe="", errors="surrogatepass"),
    "URL of SQLAlchemy": lambda text: quote(text, safe=" +", errors="surrogatepass"),
    "form": lambda text: quote_plus(text, errors="surrogatepass"),
    "config file": lambda text: text.replace("%", "%%"),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "repr in ASCII": lambda text: ascii(text)[1:-1],
    "SQL": lambda text: text.replace("'", "''"),
    "SQL with escapes": lambda text: text.replace("\\", "\\\\").replace("'", "\\'"),
    "SQL identifier": lambda text: text.replace('"', '""'),
    "HTML": html.escape,
    "HTML in ASCII": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "shell": lambda text: shlex.quote(text).strip("'"),
}
# Around two words by which a leak is recognised: no escape looks like them.
SECRETS = st.builds(
    lambda *parts: "".join(parts),
    st.text(max_size=6),
    st.just("Zyxw"),
    st.text(alphabet="@:/%?#[]&= \"'\\é€😀\t+$`<>", min_size=1, max_size=8),
    st.just("Qsyz"),
    st.text(max_size=4),
)


def leaked(text: str) -> bool:
    return "Zyxw" in text or "Qsyz" in text


@given(SECRETS, st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=1, max_size=3))
def test_a_secret_is_gone_in_every_spelling_and_in_spellings_of_spellings(secret: str, spellings: list[str]) -> None:
    conceal(secret)
    written = secret
    for spelling in spellings:
        written = SPELLINGS[spelling](written)

    text = redact(f"it logged <{written}> and more")

    assert REDACTED in text
    assert not leaked(text), text


ENCODINGS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda octets: base64.b64encode(octets).decode(),
    "base64 for URLs": lambda octets: base64.urlsafe_b64encode(octets).decode(),
    "hexadecimal": bytes.hex,
    "hexadecimal in capitals": lambda octets: octets.hex().upper(),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
@given(
    st.sampled_from(["hunter22", "Tr0ub4dor&3@:/%?#[]", "p4ss word 'é' x", "a-b-c-d-e-f-g-h-i"]),
    st.text(alphabet="user:@/", max_size=7),
    st.text(alphabet="@host/db", max_size=7),
    st.sampled_from(["as it is", "URL", "JSON"]),
)
def test_a_secret_is_gone_where_it_was_encoded_among_others(
    encode: Callable[[bytes], str], secret: str, before: str, after: str, spelling: str
) -> None:
    conceal(secret)
    # In what is alike in each spelling, or else in two of them, there is nothing to find.
    spelling = spelling if re.search(r"[A-Za-z0-9]{8}", secret) else "as it is"
    encoded = encode(f"{before}{SPELLINGS[spelling](secret)}{after}".encode())

    text = redact(f"header <{encoded}> and more")

    assert text == f"header <{REDACTED}> and more"


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title, str.swapcase])
def test_a_secret_is_gone_in_any_case(change: Callable[[str], str]) -> None:
    conceal("Tr0ub4dor&3")

    assert redact(f"it is {change('Tr0ub4dor&3')}.") == f"it is {REDACTED}."


def test_lasting_secrets_stay_and_others_can_be_forgotten() -> None:
    conceal_for_good(["lasting-secret-1"])
    for number in range(200):
        conceal(f"another-secret-{number}")

    forget_all_but("another-secret-199")

    assert redact("lasting-secret-1 another-secret-199") == f"{REDACTED} {REDACTED}"
    assert redact("another-secret-198") == "another-secret-198"
    conceal_for_good([])


@given(SECRETS)
def test_a_secret_is_gone_from_one_line_and_from_an_error(secret: str) -> None:
    conceal(secret)

    assert not leaked(one_line(f"no {secret}\n here"))
    assert not leaked(str(MigrationFailed(f"no {secret} here")))


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    conceal("Tr0ub4dor&3")
    if "://" in text or "password" in text.lower():
        return

    assert redact(text) == text


@pytest.mark.parametrize(
    "text,expected",
    [
        ("CREATE ROLE app LOGIN PASSWORD 'hunter22'", "CREATE ROLE app LOGIN PASSWORD '***'"),
        ("ALTER ROLE app ENCRYPTED PASSWORD E'it\\'s hunter22' VALID", "ALTER ROLE app ENCRYPTED PASSWORD '***' VALID"),
        ("alter role app password 'it''s hunter22';", "alter role app password '***';"),
        ("ALTER ROLE app PASSWORD $x$hunter22$x$", "ALTER ROLE app PASSWORD '***'"),
        ("OPTIONS (user 'app', password 'hunter22')", "OPTIONS (user 'app', password '***')"),
        ("dblink_connect('host=db password=hunter22 user=a')", "dblink_connect('host=db password=*** user=a')"),
        ("dblink_connect('password=''hunter 22'' user=a')", "dblink_connect('password=*** user=a')"),
        ("CONNECTION 'host=h password=hunter22'", "CONNECTION 'host=h password=***'"),
        ("postgresql://a:hunter22@db/app", "postgresql://***@db/app"),
        ("?Action=connect&X-Amz-Signature=0a1b2c&x=1", "?Action=connect&X-Amz-Signature=***&x=1"),
        ("X-Amz-Security-Token%3DIQoJb3 next", "X-Amz-Security-Token%3D*** next"),
        ("ALTER ROLE app PASSWORD 'hunter22\\'", "ALTER ROLE app PASSWORD '***'"),
        ("ALTER ROLE app PASSWORD 'hunter22", "ALTER ROLE app PASSWORD '***'"),
        ("SET password = 'it''s hunter22' WHERE a = 'b'", "SET password = *** WHERE a = 'b'"),
        ("SET password = '' WHERE id = 'x'", "SET password = *** WHERE id = 'x'"),
        ("SET password='', name='' WHERE a='b'", "SET password=***, name='' WHERE a='b'"),
        ("password=E'hunter22'", "password=***"),
        ("password=$$hunter22 x$$ and", "password=*** and"),
        ("password=hunter22\\ x host=a", "password=*** host=a"),
        ("ADD COLUMN password VARCHAR(255)", "ADD COLUMN password VARCHAR(255)"),
        ("password authentication failed for user 'a'", "password authentication failed for user 'a'"),
        ("ALTER ROLE app PASSWORD NULL", "ALTER ROLE app PASSWORD NULL"),
    ],
)
def test_what_is_a_secret_wherever_it_stands(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_many_threads_conceal_and_redact_at_once() -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                # Fewer in all than are kept, so that no other thread can push one out.
                secret = f"secret-{number}-{turn % 5}"
                conceal(secret)
                assert secret not in redact(f"it is {secret}.")
        except BaseException as error:  # noqa: BLE001 - whatever it is
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_the_secrets_in_use_are_kept_and_old_ones_forgotten() -> None:
    for number in range(1000):
        conceal(f"secret{number:04}")

    assert redact("secret0999 secret0901") == f"{REDACTED} {REDACTED}"
    assert redact("secret0001") == "secret0001"


@pytest.mark.parametrize(
    "secret,text",
    [
        ("ab'\"'c#d!f", "'\"" * 2000),
        ("''\"''!!", "'\"" * 2000),
        ("'''!Secret12", "'" * 4000 + "Secret12"),
        ("      !", " " * 4000),
        ("!!!!!!", "\\" * 4000),
        ("1-2-3-4-5-6-secretXYZ", "12345" * 800 + "secretXYZ"),
        ("a-b-c-d-e-f-secretXYZ", "a-b" * 1200 + "secretXYZ"),
    ],
    ids=range(7),
)
def test_no_secret_makes_a_long_line_take_long(secret: str, text: str) -> None:
    conceal(secret)

    # A pattern that tries everything would still be at work when pytest gives up.
    redact(text)
