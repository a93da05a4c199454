"""The handler that people deploy today: a secret, a URL, and Alembic's own command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import boto3
from alembic import command
from alembic.config import Config


def handler(_event: object, _context: object) -> dict[str, str]:
    """Upgrade to the head."""
    answer = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["DB_SECRET_ID"])
    secret = json.loads(answer["SecretString"])
    os.environ["DATABASE_URL"] = (
        f"postgresql+psycopg2://{quote(secret['username'])}:{quote(secret['password'])}@{secret['host']}"
        f":{secret['port']}/{secret['dbname']}?sslmode=verify-full&sslrootcert={quote(os.environ['DB_SSLROOTCERT'])}"
    )
    command.upgrade(Config(Path(__file__).with_name("alembic.ini")), "head")
    return {"status": "ok"}
