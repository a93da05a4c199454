"""The function's environment variables, read and checked in one place.

Nothing else in this package reads its settings from ``os.environ``. The names are those of
docs/contract.md#environment-variables.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.allowed import FIELDS, is_database_allowed, with_rollout
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.redaction import SECRET_NAME
from lambda_migrate.invocation.request import PREFLIGHT_MODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lambda_migrate.invocation.request import Target

# The address of Secrets Manager, if the stack has made an endpoint without private DNS for the function.
SECRETS_ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_SECRETS_MANAGER"

_FUNCTION_ROOT = Path(__file__).absolute().parents[1]
PACKAGE_ROOT = _FUNCTION_ROOT.parent
BACKEND_ROOT = PACKAGE_ROOT / "backend"
RDS_CA_BUNDLE = _FUNCTION_ROOT / "rds-ca-bundle.pem"

PLACEHOLDERS = (
    *("url", "driver", "host", "port", "user", "password", "database", "sslmode", "sslrootcert"),
    # Escaped, for an env.py that puts the parts into a URL as they are.
    *("user_quoted", "password_quoted"),
)

# The variables that `read_settings` reads.
VARIABLES = frozenset(
    {
        *("STAGE", "DB_SECRET_ID", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_SSLMODE"),
        *("DB_SSLROOTCERT", "DB_AUTH", "DB_DRIVER", "DATABASE_URL_ENV", "DATABASE_ENV", "ALEMBIC_X"),
        *("ALEMBIC_CONFIG", "CONNECT_TIMEOUT_S", "MIGRATION_LOCK_TIMEOUT_S", "LOCK_TIMEOUT_MS"),
        *("LOCK_RETRIES", "STATEMENT_TIMEOUT_MS", "DEADLINE_RESERVE_MS", "ALLOW_DOWNGRADE"),
        *("NEWER_DATABASE", "TARGETS_ALLOWED", "UNTRUSTED_SCHEMA", "ROLLOUT", "ROLLOUT_BUCKET"),
        *("SERVER_CONCURRENCY", "BACKEND_OUTPUT_LINES", "PREFLIGHT", "PREFLIGHT_MAX_BLOCK_S"),
        *("PREFLIGHT_TIMEOUT_MS", "CHECKPOINT", "PREFLIGHT_MAX_SCAN_MB", "LOG_LEVEL"),
    }
)

# From the weakest to the strictest.
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_MAX_MS = 15 * 60 * 1000  # the longest that a Lambda function may run
# The placeholder for the target's schema, in ALEMBIC_X only: DATABASE_ENV is about the address.
SCHEMA_PLACEHOLDER = "schema"

_X_NAME = re.compile(r"[^=\s]+")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DRIVER = re.compile(r"postgresql(\+[a-z0-9_]+)?")
# An access key's id has at least 16 characters. An emulator of AWS takes words such as "test".
_SHORTEST_AWS_CREDENTIAL = 16
_AWS_CREDENTIAL = re.compile(r"AWS_\w*(_KEY|_KEY_ID|_TOKEN)")
# At least 8 characters with a letter and a digit, or 20 at all; no address, no path, and no region.
_SECRET_TEXT = re.compile(
    r"(?!.*(://|^[./~])|[a-z]{2}(-[a-z]+)+-[0-9]$)(?=\S{8,}$)(?=.*[A-Za-z])(?=.*[0-9])\S+|(?!.*://)[^\s/]{20,}"
)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Settings:
    """The function's database, timeouts and limits. ``_s`` are seconds, ``_ms`` milliseconds.

    ``host``, ``port``, ``database`` and ``user`` override the secret. If ``secret_first`` is True, they only fill in
    keys that it lacks. ``target_database`` overrides both; if ``own_database_only`` is True, it must be the database
    that the secret and the settings lead to. ``targets_allowed`` are patterns of names that a target may have.
    ``package_root`` is the folder of the unpacked package.
    ``secret_id`` is empty if the function logs in by IAM, without a secret. ``untrusted_schema`` is None for its
    default, which depends on the login.
    """

    stage: str
    secret_id: str
    package_root: Path = PACKAGE_ROOT
    secret_first: bool = False
    target_database: str | None = None
    own_database_only: bool = False
    host: str | None = None
    port: int | None = None
    database: str | None = None
    user: str | None = None
    sslmode: str = "verify-full"
    sslrootcert: Path = RDS_CA_BUNDLE
    auth: str = "password"
    driver: str = "postgresql+psycopg2"
    url_variables: tuple[str, ...] = ("DATABASE_URL",)
    env_variables: Mapping[str, str] = field(default_factory=dict)
    x_arguments: Mapping[str, str] = field(default_factory=dict)
    alembic_config: Path = BACKEND_ROOT / "alembic.ini"
    connect_timeout_s: float = 60
    migration_lock_timeout_s: float = 300
    lock_timeout_ms: int = 3000
    lock_retries: int = 10
    statement_timeout_ms: int | None = None
    deadline_reserve_ms: int = 10_000
    allow_downgrade: bool = False
    newer_database_ok: bool = False
    checkpoint: bool = True
    preflight: str = "warn"
    preflight_max_block_s: float = 10
    preflight_timeout_ms: int = 10_000
    preflight_max_scan_mb: int = 1024
    untrusted_schema: str | None = None
    log_level: str = "INFO"
    output_lines: int = 5000
    targets_allowed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rollout: Mapping[str, Any] = field(default_factory=dict)
    rollout_bucket: str | None = None
    server_concurrency: int | None = None


def read_settings(
    environ: Mapping[str, str] = os.environ,
    *,
    package_root: Path = PACKAGE_ROOT,
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Return the settings from environment variables. An empty variable counts as absent.

    ``package_root`` is the folder of the unpacked package. The backend's own files lie in ``backend`` below it, and
    relative paths are resolved inside the package. ``defaults`` are the values of variables that are absent.

    Raises:
        ConfigurationError: a variable is missing or wrong. The message names it and its allowed values, and shows its
            value unless that may be a secret.
    """
    reader = _Reader({**defaults, **{name: value for name, value in environ.items() if value.strip()}})
    backend_root = package_root / "backend"
    sslrootcert = reader.text("DB_SSLROOTCERT")
    settings = Settings(
        stage=reader.required("STAGE"),
        secret_id=reader.secret("DB_SECRET_ID"),
        package_root=package_root,
        host=reader.text("DB_HOST"),
        port=reader.whole("DB_PORT", at_least=1, at_most=65535),
        database=reader.text("DB_NAME"),
        user=reader.text("DB_USER"),
        sslmode=reader.choice("DB_SSLMODE", "verify-full", SSL_MODES),
        sslrootcert=reader.file("DB_SSLROOTCERT", package_root / sslrootcert) if sslrootcert else RDS_CA_BUNDLE,
        auth=reader.choice("DB_AUTH", "password", ("password", "iam")),
        driver=reader.driver("DB_DRIVER", "postgresql+psycopg2"),
        url_variables=reader.names("DATABASE_URL_ENV", ("DATABASE_URL",)),
        env_variables=reader.templates("DATABASE_ENV"),
        x_arguments=reader.templates("ALEMBIC_X", _X_NAME, (SCHEMA_PLACEHOLDER,)),
        alembic_config=backend_root / (reader.text("ALEMBIC_CONFIG") or "alembic.ini"),
        connect_timeout_s=reader.seconds("CONNECT_TIMEOUT_S", 60),
        migration_lock_timeout_s=reader.seconds("MIGRATION_LOCK_TIMEOUT_S", 300),
        lock_timeout_ms=_or(reader.whole("LOCK_TIMEOUT_MS", at_least=1, at_most=_MAX_MS), 3000),
        lock_retries=_or(reader.whole("LOCK_RETRIES", at_least=0, at_most=1000), 10),
        statement_timeout_ms=reader.whole("STATEMENT_TIMEOUT_MS", at_least=1, at_most=_MAX_MS),
        deadline_reserve_ms=_or(reader.whole("DEADLINE_RESERVE_MS", at_least=0, at_most=_MAX_MS), 10_000),
        allow_downgrade=reader.choice("ALLOW_DOWNGRADE", "false", ("true", "false")) == "true",
        untrusted_schema=(
            reader.choice("UNTRUSTED_SCHEMA", "warn", ("refuse", "warn", "ignore"))
            if reader.text("UNTRUSTED_SCHEMA")
            else None
        ),
        newer_database_ok=reader.choice("NEWER_DATABASE", "error", ("error", "ok")) == "ok",
        checkpoint=reader.choice("CHECKPOINT", "on", ("on", "off")) == "on",
        preflight=reader.choice("PREFLIGHT", "warn", PREFLIGHT_MODES),
        preflight_max_block_s=reader.seconds("PREFLIGHT_MAX_BLOCK_S", 10),
        preflight_timeout_ms=_or(reader.whole("PREFLIGHT_TIMEOUT_MS", at_least=1, at_most=_MAX_MS), 10_000),
        preflight_max_scan_mb=_or(reader.whole("PREFLIGHT_MAX_SCAN_MB", at_least=0, at_most=_MAX_MS), 1024),
        output_lines=_or(reader.whole("BACKEND_OUTPUT_LINES", at_least=0, at_most=1_000_000), 5000),
        log_level=reader.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        targets_allowed=reader.patterns("TARGETS_ALLOWED"),
        rollout=reader.mapping("ROLLOUT"),
        rollout_bucket=reader.text("ROLLOUT_BUCKET"),
        server_concurrency=reader.whole("SERVER_CONCURRENCY", at_least=1, at_most=10_000),
    )
    return replace(settings, targets_allowed=with_rollout(settings.targets_allowed, settings.rollout))


def endpoint_url(service: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL at which the function calls an AWS service, or None for the service's own."""
    return (environ.get(SECRETS_ENDPOINT_VARIABLE) or None) if service == "secretsmanager" else None


@dataclass(frozen=True)
class _Reader:
    """Reads one variable at a time, so that each error can name its variable."""

    environ: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.environ.get(name)

    def required(self, name: str) -> str:
        value = self.environ.get(name)
        if value is None:
            raise ConfigurationError(f"environment variable {name} is not set on the function")
        return value

    def secret(self, name: str) -> str:
        """Return the secret's name, or an empty text if the login is by IAM and the variables hold all of it."""
        if self.environ.get("DB_AUTH") == "iam" and name not in self.environ:
            for other in ("DB_HOST", "DB_NAME", "DB_USER"):
                if other not in self.environ:
                    raise ConfigurationError(f"set {other} on the function, or {name}: DB_AUTH=iam without a secret")
            return ""
        return self.required(name)

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.environ.get(name, default)
        if value not in allowed:
            raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    def whole(self, name: str, *, at_least: int, at_most: int) -> int | None:
        value = self.environ.get(name)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,9}", value) or not at_least <= int(value) <= at_most:
            raise ConfigurationError(f"{name} must be a whole number from {at_least} to {at_most}, not {value!r}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        value = self.environ.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", value) or float(value) <= 0:
            raise ConfigurationError(f"{name} must be a number of seconds above 0, not {value!r}")
        return float(value)

    def driver(self, name: str, default: str) -> str:
        value = self.environ.get(name, default)
        if not _DRIVER.fullmatch(value):
            raise ConfigurationError(f"{name} must be a PostgreSQL driver such as {default}, not {value!r}")
        return value

    def names(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.environ.get(name)
        if value is None:
            return default
        names = tuple(part.strip() for part in value.split(","))
        for part in names:
            if not _VARIABLE_NAME.fullmatch(part):
                raise ConfigurationError(
                    f"{name} must be names of environment variables separated by commas: {value!r}"
                )
        return names

    def templates(
        self, name: str, names: re.Pattern[str] = _VARIABLE_NAME, further: tuple[str, ...] = ()
    ) -> Mapping[str, str]:
        """Return a JSON object of texts with placeholders. Its values may hold a secret, so no message shows one.

        ``further`` are placeholders beside `PLACEHOLDERS`.
        """
        value = self.environ.get(name)
        if value is None:
            return {}
        try:
            templates = json.loads(value)
        except ValueError:
            templates = None
        if not isinstance(templates, dict) or not all(isinstance(text, str) for text in templates.values()):
            raise ConfigurationError(f"{name} must be a JSON object of texts")
        for key, text in templates.items():
            if not names.fullmatch(key):
                raise ConfigurationError(f"{name}: {key!r} is no valid name")
            self._check_placeholders(name, key, text, (*PLACEHOLDERS, *further))
        return templates

    @staticmethod
    def _check_placeholders(name: str, key: str, text: str, known: tuple[str, ...]) -> None:
        for placeholder in _PLACEHOLDER.findall(text):
            if placeholder not in known:
                listed = ", ".join(f"{{{each}}}" for each in known)
                raise ConfigurationError(f"{name}: {key} has an unknown placeholder; known: {listed}")

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.environ.get(name)
        if value is None:
            return {}
        try:
            content = json.loads(value)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ConfigurationError(f"{name} must be a JSON object")
        return content

    def patterns(self, name: str) -> Mapping[str, Sequence[str]]:
        given = self.mapping(name)
        for key, patterns in given.items():
            if key not in FIELDS:
                raise ConfigurationError(f"{name} has an unknown key {key!a}; known: {', '.join(FIELDS)}")
            if not isinstance(patterns, list) or not all(isinstance(text, str) and text for text in patterns):
                raise ConfigurationError(f'{name}: {key} must be a list of patterns such as "tenant_*"')
        return given

    def file(self, name: str, path: Path) -> Path:
        if not path.is_file():
            raise ConfigurationError(f"{name}: there is no file {path}")
        return path


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def secrets_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield the secrets that the function has beside the database's: its AWS credentials, and those in DATABASE_ENV.

    DATABASE_ENV may hold any text. One is taken for a secret if its variable is named like one, or if it looks like
    one: plain words and short numbers would blank out half of the log.
    """
    for name, value in environ.items():
        if _AWS_CREDENTIAL.fullmatch(name) and len(value) >= _SHORTEST_AWS_CREDENTIAL:
            yield value
    for name, text in settings.env_variables.items():
        named = SECRET_NAME.search(name) is not None
        for part in _PLACEHOLDER.sub("\0", text).split("\0"):
            if named or _SECRET_TEXT.fullmatch(part):
                yield part.strip()


def settings_for(target: Target, settings: Settings) -> Settings:
    """Return the settings with which a target is reached.

    The stage's DB_ variables override the stage's own secret. For another secret they only fill in keys that it lacks.
    """
    if target.secret_id is not None:
        settings = replace(settings, secret_id=target.secret_id, secret_first=True)
    if target.database is not None:
        settings = replace(
            settings,
            target_database=target.database,
            own_database_only=not is_database_allowed(target.database, settings.targets_allowed),
        )
    return settings
