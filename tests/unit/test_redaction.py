"""Redaction removes secrets in any form in which a library writes them."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import shlex
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.env_py import output
from lambda_migrate.env_py.messages import Message, Output
from lambda_migrate.invocation.errors import MigrationFailed
from lambda_migrate.invocation.redaction import (
    REDACTED,
    conceal,
    conceal_for_good,
    forget_all_but,
    may_hold_secret,
    one_line,
    redact,
)

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


def each_octet(form: str) -> Callable[[str], str]:
    return lambda text: "".join(form.format(octet) for octet in text.encode())


# Also letters and digits are escaped.
ESCAPED_WHOLLY: dict[str, Callable[[str], str]] = {
    "URL": each_octet("%{:02x}"),
    "URL in capitals": each_octet("%{:02X}"),
    "URL twice": each_octet("%25{:02x}"),
    "quoted-printable": each_octet("={:02X}"),
    "octal": each_octet("\\{:03o}"),
    "C": each_octet("\\x{:02x}"),
    "JSON": each_octet("\\u{:04x}"),
    "JSON in capitals": each_octet("\\u{:04X}"),
    "JSON in JSON": each_octet("\\\\u{:04x}"),
    "JavaScript": each_octet("\\u{{{:x}}}"),
    "HTML": each_octet("&#{};"),
    "HTML in hexadecimal": each_octet("&#x{:x};"),
    "HTML in HTML": each_octet("&amp;#{};"),
    "URL in JSON": each_octet("\\u0025{:02x}"),
    "base64 in a URL": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
    "base64 in JSON": lambda text: base64.b64encode(text.encode()).decode().replace("/", "\\/"),
    "hexadecimal with colons": lambda text: text.encode().hex(":"),
    "hexadecimal with spaces": lambda text: text.encode().hex(" "),
    "list of hexadecimal": lambda text: ", ".join(map(hex, text.encode())),
    "list of numbers": lambda text: str(list(text.encode())),
    "tuple of numbers": lambda text: str(tuple(text.encode())),
}


@pytest.mark.parametrize("escape", ESCAPED_WHOLLY.values(), ids=ESCAPED_WHOLLY.keys())
@given(st.text(alphabet="!#$%&()*+,-./:;<=>?@[]^_{|}~\\'\"é", max_size=5), st.integers(0, 13))
def test_a_secret_is_gone_where_its_letters_are_escaped(escape: Callable[[str], str], signs: str, at: int) -> None:
    secret = f"{'Zyxw7Qsyz94Klm'[:at]}{signs}{'Zyxw7Qsyz94Klm'[at:]}"
    conceal(secret)
    written = f"it logged <{escape(secret)}>"
    as_json = json.dumps({"message": written})

    assert may_hold_secret(as_json)
    for text in (redact(written), redact(as_json)):
        assert REDACTED in text
        assert all(escape(part) not in text for part in ("Zyxw7", "94Klm"))


@pytest.mark.parametrize("secret", ["Zyxw7Qsyz94Klm", "a4+loNger/One=w1th-siGns_anD.dots", "9f8a7d6c-1b2e-4f3a-8c7d"])
def test_no_line_has_half_of_a_secret(secret: str) -> None:
    conceal(secret)

    for cut in range(1, len(secret)):
        left = [redact(f"from {secret[:cut]}"), redact(f"{secret[cut:]} to")]
        assert REDACTED in "".join(left)
        shortened = redact(f"{{'HOST': 'loca...{secret[cut:]}'}}")  # as pydantic writes a long value
        assert len(secret) - cut < len(secret) / 2 or REDACTED in shortened
        longest = max(len(part.removeprefix("from ").removesuffix(" to").replace(REDACTED, "")) for part in left)
        assert longest < len(secret) / 2


def test_half_of_a_password_stays_where_it_is_a_word() -> None:
    conceal("template_saas_password")

    assert redact('database "template_saas" does not exist') == 'database "template_saas" does not exist'


def test_a_name_that_begins_like_a_password_stays() -> None:
    conceal("test_4874328d59c0-secret")
    text = 'role test_4874328d59c0_owner may create: GRANT x TO "test_4874328d59c0_owner"'

    assert redact(text) == text


def test_half_of_an_arn_stays_in_another_one() -> None:
    conceal("arn:aws:secretsmanager:eu-west-1:123456789012:secret:Orders-Kx9mQ2")
    other = "cannot read arn:aws:secretsmanager:eu-west-1:123456789012:secret:Other"

    assert redact(other) == other


def test_escapes_stay_in_a_text_without_a_secret() -> None:
    conceal("Zyxw7Qsyz94Klm")

    assert redact("zyxw: a=41 \\u0041 &#65; 41:42:43:44:45:46:47:48:49") == (
        "zyxw: a=41 \\u0041 &#65; 41:42:43:44:45:46:47:48:49"
    )


def test_each_line_of_a_key_is_gone() -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAg", "EAAoIBAQC7VJTUt9Us8cKj"]
    conceal_for_good(["\n".join(lines), json.dumps({"key": "\n".join(line[::-1] for line in lines)})])

    for line in lines:
        assert redact(f"<{line}>") == f"<{REDACTED}>"
    assert redact(f"<{lines[1][::-1]}>") == f"<{REDACTED}>"
    conceal_for_good([])


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title, str.swapcase])
def test_a_secret_is_gone_in_any_case(change: Callable[[str], str]) -> None:
    conceal("Tr0ub4dor&3")

    assert redact(f"it is {change('Tr0ub4dor&3')}.") == f"it is {REDACTED}."


def test_lasting_secrets_stay_and_others_can_be_forgotten() -> None:
    conceal_for_good(["for-good-Xy7"])
    for number in range(200):
        conceal(f"{number}-only-now")

    forget_all_but("199-only-now")

    assert redact("for-good-Xy7 199-only-now") == f"{REDACTED} {REDACTED}"
    assert redact("198-only-now") == "198-only-now"
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
def test_these_texts_are_secrets_at_any_place(text: str, expected: str) -> None:
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
        ("a1b2a1b2a1b2", "a1b2a1b" * 9_000),
        ("secretXYZ123", "\\" * 20_000),
        ("secretXYZ123", "&amp;" * 20_000),
        ("secretXYZ123", "12, " * 20_000),
    ],
    ids=range(11),
)
def test_no_secret_makes_a_long_line_take_long(secret: str, text: str) -> None:
    conceal(secret)

    # A pattern that tries everything would still be at work when pytest gives up.
    redact(text)


def test_output_over_the_limit_is_counted_without_the_search_for_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    def search(text: str) -> str:
        searched.append(text)
        return REDACTED

    monkeypatch.setattr(output, "one_line", search)
    sent: list[Message] = []
    limited = output.OutputLimit(sent.append, lines=1, limit=1)

    for text in ("first", "second", "third"):
        limited.send(Output(logging.INFO, "stdout", text))
    limited.finish()

    assert searched == ["first"]
    assert [each.text.split(":")[0] for each in sent if isinstance(each, Output)] == [
        REDACTED,
        "2 further lines of output were not logged",
    ]
