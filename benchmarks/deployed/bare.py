"""The lower limit: a handler without lock, checks, log and Alembic. The SQL is a list beside this file."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import boto3
import psycopg2

_HERE = Path(__file__).parent
_kept: dict[str, str] = {}


def handler(event: dict[str, dict[str, str]] | None, _context: object) -> dict[str, str]:
    """Read the version, and apply the later changes, each in its own transaction."""
    target = (event or {}).get("target", {})
    if "secret" not in _kept:
        answer = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["DB_SECRET_ID"])
        _kept["secret"] = answer["SecretString"]
    secret = json.loads(_kept["secret"])
    connection = psycopg2.connect(
        host=secret["host"],
        port=secret["port"],
        dbname=target.get("database", secret["dbname"]),
        user=secret["username"],
        password=secret["password"],
        sslmode="verify-full",
        sslrootcert=os.environ["DB_SSLROOTCERT"],
        options=f"-c search_path={target['schema']}" if "schema" in target else None,
    )
    head = (_HERE / "head").read_text(encoding="utf-8")
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        found = cursor.fetchone()
        version = found[0] if found else ""
        if version != head:
            changes = json.loads((_HERE / "changes.json").read_text(encoding="utf-8"))
            if not version:
                cursor.execute("INSERT INTO alembic_version VALUES ('')")
            connection.commit()
            for revision, statement in changes:
                if revision > version:
                    cursor.execute(statement)
                    cursor.execute("UPDATE alembic_version SET version_num = %s", (revision,))
                    connection.commit()
    return {"status": "ok"}
