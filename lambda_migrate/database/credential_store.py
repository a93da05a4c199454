"""The secret, and the database address and login that it holds."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lambda_migrate.database.credentials import Credentials
from lambda_migrate.invocation.allowed import is_of_the_server, not_allowed
from lambda_migrate.invocation.aws import NO_ANSWER, AwsError, calling, client, rds_token
from lambda_migrate.invocation.errors import SecretMalformed, SecretUnavailable
from lambda_migrate.invocation.redaction import conceal, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.invocation.settings import Settings

# Replaces a missing secret. The variables contain the rest.
_NOTHING_HELD = '{"port": 5432}'

# The keys under which a JSON object may hold a connection string, in this order.
URL_KEYS = ("DbConnStr", "DATABASE_URL", "url")

_LAST_PORT = 65535
_ENGINES = ("postgres", "postgresql", "aurora-postgresql")

# An IAM token is valid for 15 minutes. A new one is signed after 10.
_TOKEN_KEPT_S = 600

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>{password}))?@)?"
    r"(?P<host>\[[^\]]*\]|[^:/?#@]*)(?::(?P<port>[^/?#]*))?"
    r"(?:/(?P<database>[^?#]*))?(?:\?(?P<query>.*))?".replace("{password}", r"[^@/?#]*"),
    re.DOTALL,
)
# For a password that was pasted without the escaping of URLs: it ends at the last "@" that a host follows.
_URL_UNESCAPED = re.compile(_URL.pattern.replace(r"(?P<password>[^@/?#]*)", r"(?P<password>.*)"), re.DOTALL)


class CredentialStore:
    """A cache of secrets and IAM tokens for the life of the execution environment."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._tokens: dict[tuple[str, int, str], tuple[str, float]] = {}

    def get(self, settings: Settings) -> Credentials:
        """Return the credentials of ``settings.secret_id``, from memory if it was read before.

        Raises:
            SecretUnavailable: the secret is missing, denied or unreachable.
            SecretMalformed: the secret holds no usable credentials.
        """
        if settings.secret_id not in self._known:
            self._known[settings.secret_id] = read_secret(settings.secret_id)
        credentials = parse_secret(self._known[settings.secret_id], settings)
        if settings.auth == "iam":
            credentials = replace(credentials, password=self._token(credentials))
        return credentials

    def _token(self, credentials: Credentials) -> str:
        """Return an RDS IAM token, from memory if it is recent. Signing a token needs no call to AWS."""
        key = (credentials.host, credentials.port, credentials.user)
        token, until = self._tokens.get(key, ("", 0.0))
        if until <= time.monotonic():
            token = sign_token(credentials)
            conceal(token)
            self._tokens[key] = token, time.monotonic() + _TOKEN_KEPT_S
        return token

    def forget(self) -> None:
        """Forget every secret and token."""
        self._known.clear()
        self._tokens.clear()

    def refresh(self, settings: Settings) -> Credentials:
        """Return the credentials from Secrets Manager and not from memory, or raise as `get`."""
        self._known.pop(settings.secret_id, None)
        self._tokens.clear()
        return self.get(settings)


# An execution environment reads each secret once, and again after a refused login.
STORE = CredentialStore()


def sign_token(credentials: Credentials) -> str:
    """Return a password for the RDS user, signed with the function's role.

    Raises:
        SecretUnavailable: the function has no credentials or region to sign with.
    """
    try:
        return rds_token(credentials.host, credentials.port, credentials.user)
    except AwsError as error:
        raise SecretUnavailable(f"no IAM token could be signed: {one_line(error)}") from None


def read_secret(secret_id: str) -> str:
    """Return the current text of a secret, or that of an empty secret if the name is empty.

    Raises:
        SecretUnavailable: it is missing, denied or unreachable; the message names the cause and the next step.
        SecretMalformed: the secret is binary.
    """
    if not secret_id:
        return _NOTHING_HELD
    try:
        with calling():
            answer = client("secretsmanager").get_secret_value(SecretId=secret_id)
    except AwsError as error:
        problem = f"secret {secret_id} could not be read: {error.code}: {one_line(error)}"
        raise SecretUnavailable(f"{problem} ({_ADVICE.get(error.code, _NO_ADVICE)})") from None
    text: str | None = answer.get("SecretString")
    if text is None:
        raise SecretMalformed(f"secret {secret_id} holds binary data; it must hold text")
    return text


_NO_ROUTE = (
    "Secrets Manager did not answer; a function in a VPC needs an interface endpoint for secretsmanager or a NAT"
    " gateway, and a security group that lets it out on port 443"
)
_ADVICE = {
    "ResourceNotFoundException": "create it in this account and region, or"
    " correct the stage's `database.secret` (DB_SECRET_ID)",
    "AccessDeniedException": "the function's role needs secretsmanager:GetSecretValue on it, and kms:Decrypt on its"
    " key where that is customer-managed",
    "DecryptionFailure": "its KMS key is disabled, deleted or denied to the function's role",
    "InvalidRequestException": "it may be marked for deletion: restore it",
    "ThrottlingException": "Secrets Manager throttled the call: try again",
    **dict.fromkeys(NO_ANSWER, _NO_ROUTE),
}
_NO_ADVICE = "see the message of Secrets Manager"


def parse_secret(text: str, settings: Settings) -> Credentials:
    """Return the credentials in a secret's text, which has any form of docs/contract.md#the-secret.

    Settings fill in what the secret lacks and override what it holds.

    Raises:
        SecretMalformed: the message names the key that is missing or wrong and where to set it, never a value.
        InvalidRequest: the stage does not allow the target's database.
    """
    parts = _parts(text, settings.secret_id)
    # Conceal the password before any check: even a malformed secret must not appear in a log.
    if isinstance(parts.get("password"), str):
        conceal(parts["password"])
    engine = parts.get("engine")
    if engine is not None and engine not in _ENGINES:
        raise SecretMalformed(f"secret {settings.secret_id}: key engine names a database other than PostgreSQL")
    given = {"host": settings.host, "port": settings.port, "dbname": settings.database, "username": settings.user}
    given = {key: value for key, value in given.items() if value is not None}
    held = {key: value for key, value in parts.items() if value not in (None, "")}
    merged = {**given, **held} if settings.secret_first else {**held, **given}
    merged["dbname"] = _database(merged.get("dbname"), settings)
    return Credentials(
        host=_text(merged, "host", settings, "DB_HOST"),
        port=_port(merged, settings),
        database=_text(merged, "dbname", settings, "DB_NAME"),
        user=_text(merged, "username", settings, "DB_USER"),
        password="" if settings.auth == "iam" else _text(merged, "password", settings, None),
        sslmode=settings.sslmode,
        sslrootcert=settings.sslrootcert,
    )


def _database(own: object, settings: Settings) -> object:
    """Return the name of the database, which a target may name.

    Raises:
        InvalidRequest: the stage does not allow the target's database.
    """
    wanted = settings.target_database
    if wanted is not None and settings.own_database_only and wanted != own:
        raise not_allowed("database", wanted, settings.targets_allowed)
    if wanted is not None:
        return wanted
    if settings.secret_first and isinstance(own, str) and is_of_the_server(own):
        raise not_allowed("database", own, settings.targets_allowed)
    return own


def _parts(text: str, secret_id: str) -> Mapping[str, Any]:
    """Return the keys of an RDS secret, out of JSON or out of a connection string."""
    if not text.strip():
        raise SecretMalformed(f"secret {secret_id} is empty")
    if not text.lstrip().startswith(("{", "[", '"')):
        return _parts_of_url(text.strip(), f"secret {secret_id}")
    try:
        document = json.loads(text)
    except ValueError as error:
        # Only the position, because json's own message may quote the secret.
        position = f"line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else "?"
        raise SecretMalformed(
            f"secret {secret_id} is neither JSON (broken at {position}) nor a connection string"
        ) from None
    if not isinstance(document, dict):
        raise SecretMalformed(f"secret {secret_id} must be a JSON object or a connection string")
    for key in URL_KEYS:
        if key in document and "username" not in document:
            if not isinstance(document[key], str):
                raise SecretMalformed(f"secret {secret_id}: key {key} must be a connection string")
            return _parts_of_url(document[key].strip(), f"secret {secret_id}: key {key}")
    return document


def _parts_of_url(url: str, where: str) -> Mapping[str, Any]:
    found = _URL.fullmatch(url) or _URL_UNESCAPED.fullmatch(url)
    if found is None:
        raise SecretMalformed(f"{where} is no connection string: postgresql://user:password@host:port/database")
    if not found["scheme"].lower().startswith("postgres"):
        raise SecretMalformed(f"{where} is not a PostgreSQL connection string: it must start with postgresql://")
    parts: dict[str, Any] = {"port": found["port"] or "5432"}
    for key, group in (("username", "user"), ("password", "password"), ("host", "host"), ("dbname", "database")):
        if found[group]:
            parts[key] = unquote(found[group])
    if parts.get("host", "").startswith("["):
        parts["host"] = parts["host"][1:-1]
    # A message of a library may hold the password in its escaped form.
    conceal(found["password"] or "")
    return parts


def _text(parts: Mapping[str, Any], key: str, settings: Settings, variable: str | None) -> str:
    value = parts.get(key)
    elsewhere = f"; put it there or set {variable} on the function" if variable else ""
    if value is None or value == "":
        raise SecretMalformed(f"secret {settings.secret_id} has no key {key}{elsewhere}")
    if not isinstance(value, str):
        raise SecretMalformed(f"secret {settings.secret_id}: key {key} must be text")
    if "\x00" in value:
        raise SecretMalformed(f"secret {settings.secret_id}: key {key} holds a NUL character")
    return value


def _port(parts: Mapping[str, Any], settings: Settings) -> int:
    value = parts.get("port")
    if value is None or value == "":
        raise SecretMalformed(
            f"secret {settings.secret_id} has no key port; put it there, or set the stage's `database.port` (DB_PORT)"
        )
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value) else value
    if type(number) is not int or not 1 <= number <= _LAST_PORT:
        raise SecretMalformed(f"secret {settings.secret_id}: key port must be a number from 1 to 65535")
    return number
