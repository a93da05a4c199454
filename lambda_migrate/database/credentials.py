"""The address and login of a database, in the forms that drivers and env.py files need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Credentials:
    """The address and login of a database. The repr leaves ``password`` out."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    sslmode: str
    sslrootcert: Path

    def url(self, driver: str) -> str:
        """Return the address as a SQLAlchemy URL. PGSSLMODE sets TLS, because not every driver knows ``?sslmode=``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"{driver}://{quote(self.user, safe='')}:{quote(self.password, safe='')}"
            f"@{host}:{self.port}/{quote(self.database, safe='')}"
        )

    def placeholders(self, driver: str) -> dict[str, str]:
        """Return the values of the placeholders in the templates of DATABASE_ENV."""
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
            "user_quoted": quote(self.user, safe=""),
            "password_quoted": quote(self.password, safe=""),
        }
