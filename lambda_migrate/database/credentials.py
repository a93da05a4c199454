"""Where a database is and how to log in, in the forms that drivers and env.py files want."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Credentials:
    """Where the database is and how to log in. ``password`` never shows in a repr."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    sslmode: str
    sslrootcert: Path

    def url(self, driver: str) -> str:
        """The address as a SQLAlchemy URL. TLS is left to PGSSLMODE: not every driver knows ``?sslmode=``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"{driver}://{quote(self.user, safe='')}:{quote(self.password, safe='')}"
            f"@{host}:{self.port}/{quote(self.database, safe='')}"
        )

    def placeholders(self, driver: str) -> dict[str, str]:
        """What the templates of DATABASE_ENV may name."""
        return {
            "url": self.url(driver),
            "driver": driver,
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "sslmode": self.sslmode,
            "sslrootcert": str(self.sslrootcert),
        }
