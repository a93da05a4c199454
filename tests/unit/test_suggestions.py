"""The suggested DATABASE_ENV for the variables that a backend reads."""

from __future__ import annotations

import json
import runpy
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast

import pydantic
import pytest
from pydantic import BaseModel, Field, PostgresDsn

from infra.package.import_graph import Reached, When
from infra.package.variables import Variables, find
from lambda_migrate.env_py import hints
from lambda_migrate.env_py.advice import advice
from lambda_migrate.invocation.suggestions import database_env

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ConfigDict

FULL_STACK = """
from pydantic import computed_field
from pydantic_settings import BaseSettings, SettingsConfigDict
class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_file="../.env")
    PROJECT_NAME: str
    SECRET_KEY: str = "x"
    POSTGRES_SERVER: str
    POSTGRES_PORT: int = 5432
    POSTGRES_USER: str
    POSTGRES_PASSWORD: str = ""
    POSTGRES_DB: str = ""
settings = Settings()
"""


def found(folder: Path, text: str) -> Variables:
    file = folder / "config.py"
    file.write_text(text)
    path = PurePosixPath("backend/config.py")
    return find({path: file}, Reached({path: When.ALWAYS}, (), changes_the_path=False))


def test_fastapis_usual_settings(tmp_path: Path) -> None:
    variables = found(tmp_path, FULL_STACK)
    assert variables.templates == {
        "POSTGRES_SERVER": "{host}",
        "POSTGRES_PORT": "{port}",
        "POSTGRES_USER": "{user}",
        "POSTGRES_PASSWORD": "{password}",
        "POSTGRES_DB": "{database}",
    }
    assert variables.required == ("PROJECT_NAME",)
    line = variables.lacking({}, ("DATABASE_URL",))
    assert line is not None
    assert '"environment": {"DATABASE_ENV": {"POSTGRES_SERVER": "{host}", ' in line
    assert '"PROJECT_NAME": "..."' in line
    assert variables.lacking({"DATABASE_ENV": "{}", "PROJECT_NAME": "a"}, ("DATABASE_URL",)) is None


def test_the_first_of_several_aliases(tmp_path: Path) -> None:
    field = 'database_password: str = Field(validation_alias=AliasChoices("SHOP_DB_PASSWORD", "databasePassword"))'
    variables = found(tmp_path, f"import x\nclass Config(BaseSettings):\n    {field}\n")
    assert variables.templates == {"SHOP_DB_PASSWORD": "{password}"}


def test_a_prefix_an_alias_and_plain_reads(tmp_path: Path) -> None:
    text = (
        "import os\nfrom pydantic_settings import BaseSettings\nfrom pydantic import Field\n"
        "class Db(BaseSettings):\n    host: str = Field(..., alias='DB_HOST')\n    password: str\n"
        "    class Config:\n        env_prefix = 'DB_'\n"
        "user = os.environ['PGUSER']\nname = os.getenv('DB_NAME', 'x')\n"
    )
    assert found(tmp_path, text).templates == {
        "DB_HOST": "{host}",
        "DB_PASSWORD": "{password}",
        "PGUSER": "{user}",
        "DB_NAME": "{database}",
    }


def test_variables_of_other_libraries(tmp_path: Path) -> None:
    text = (
        "from decouple import config\nSECRET_KEY = config('SECRET_KEY')\nDB_HOST = config('DB_HOST', default='db')\n"
        "DEBUG = config('DEBUG', default=False, cast=bool)\nMODE = env.str('MODE')\nPORT = env.int('PORT', 1)\n"
    )
    variables = found(tmp_path, text)
    assert (variables.templates, variables.required) == ({"DB_HOST": "{host}"}, ("SECRET_KEY", "MODE"))


def test_settings_in_settings(tmp_path: Path) -> None:
    text = (
        "from enum import Enum\nfrom pydantic import BaseModel\nfrom pydantic_settings import BaseSettings\n"
        "class Mode(str, Enum):\n    DEV = 'dev'\n"
        "class Db(BaseModel):\n    host: str\n    password: str\n    echo: bool = False\n    mode: Mode\n"
        "class Auth(BaseModel):\n    secret_key: str\n"
        "class Config(BaseSettings):\n    model_config = {NESTED}\n"
        "    db: Db = Field(..., alias='DATABASE')\n    auth: Auth\n    more: Auth = Auth(secret_key='x')\n"
    )
    nested = found(
        tmp_path, text.replace("{NESTED}", "SettingsConfigDict(env_prefix='APP_', env_nested_delimiter='__')")
    )
    assert nested.templates == {"DATABASE__HOST": "{host}", "DATABASE__PASSWORD": "{password}"}
    assert nested.required == ("DATABASE__MODE", "APP_AUTH__SECRET_KEY")
    # Without a delimiter, pydantic reads each as a JSON object, and nobody sets one that has a default.
    plain = found(tmp_path, text.replace("{NESTED}", "SettingsConfigDict(env_prefix='APP_')"))
    assert plain.required == ("APP_AUTH",)
    assert "APP_MORE" not in str(plain.lacking({}, ()))


def test_a_whole_address_that_the_backend_makes_of_its_parts(tmp_path: Path) -> None:
    parts = "    DB_HOST: str\n    DB_PASSWORD: str\n    DB_NAME: str\n"
    text = f"from pydantic import BaseSettings\nclass Config(BaseSettings):\n{parts}    DB_URI: str = ''\n"
    assert "DB_URI" not in found(tmp_path, text).templates
    line = found(tmp_path, text).lacking({}, ("DATABASE_URL",))
    assert str(line).endswith('; if it makes no address of these, "environment": {"DATABASE_ENV": {"DB_URI": "{url}"}}')
    assert found(tmp_path, text.replace(" = ''", "")).templates["DB_URI"] == "{url}"
    assert found(tmp_path, text.replace(parts, "")).templates["DB_URI"] == "{url}"


def test_an_address_made_of_parts_as_they_are_gets_them_escaped(tmp_path: Path) -> None:
    text = "import os\nDB_PASSWORD = os.environ['DB_PASSWORD']\nurl = f'postgresql://u:{DB_PASSWORD}@h/d'\n"
    assert found(tmp_path, text).templates == {"DB_PASSWORD": "{password_quoted}"}
    in_two = text.replace("//u:", "//' f'u:")
    assert found(tmp_path, in_two).templates == {"DB_PASSWORD": "{password_quoted}"}


def test_an_address_in_a_string() -> None:
    assert database_env(["DATABASE_STRING", "API_STRING"]) == {"DATABASE_STRING": "{url}"}


def test_names_of_other_things_are_left_alone() -> None:
    names = ["DB_CONNECTION_NAME", "DB_APPLICATION_NAME", "DB_USER_NAME", "DB_HOST_NAME", "DB_NAME"]
    assert database_env(names) == {"DB_USER_NAME": "{user}", "DB_HOST_NAME": "{host}", "DB_NAME": "{database}"}


def test_variables_of_other_servers_are_left_alone() -> None:
    assert database_env(["REDIS_HOST", "MYSQL_PASSWORD", "SMTP_PORT", "TEST_DATABASE_URL", "SECRET_KEY"]) == {}


def test_a_port_for_the_host_is_a_port() -> None:
    assert database_env(["DB_PORT_FOR_HOST", "DB_HOST"]) == {"DB_PORT_FOR_HOST": "{port}", "DB_HOST": "{host}"}


def test_the_address_alone_needs_no_suggestion(tmp_path: Path) -> None:
    variables = found(tmp_path, "import os\nurl = os.environ['DATABASE_URL']\n")
    assert variables.lacking({}, ("DATABASE_URL",)) is None
    assert "DATABASE_URL" in str(variables.lacking({"DATABASE_URL_ENV": "OTHER"}, ("OTHER",)))


class MissingGreenlet(Exception):  # noqa: N818 - SQLAlchemy's name
    """An error with the name of SQLAlchemy's."""


class ValidationError(Exception):
    """Return the error that pydantic 2 raises."""

    def errors(self) -> list[dict[str, object]]:
        return [
            {"type": "missing", "loc": ("POSTGRES_SERVER",), "msg": "Field required"},
            {"type": "missing", "loc": ("project_name",), "msg": "Field required"},
            {"type": "int_parsing", "loc": ("POSTGRES_PORT",), "msg": "Input should be a valid integer"},
        ]


@pytest.mark.parametrize(
    "error, hint",
    [
        (KeyError("DB_HOST"), '"environment": {"DATABASE_ENV": {"DB_HOST": "{host}"}}'),
        (ValidationError(), '{"DATABASE_ENV": {"POSTGRES_SERVER": "{host}"}, "PROJECT_NAME": "..."}'),
        (KeyError("Config 'PORTAL' is missing, and has no default."), '"environment": {"PORTAL": "..."}'),
        (ValueError("PORTAL not found. Declare it as envvar or define a default value."), '{"PORTAL": "..."}'),
        (ValueError('Environment variable "PORTAL" not set'), '{"PORTAL": "..."}'),
        (ValueError("Set the PORTAL environment variable"), '{"PORTAL": "..."}'),
        (AttributeError("'Settings' object has no attribute 'PORTAL'"), '{"PORTAL": "..."}'),
        (ModuleNotFoundError("No module", name="aiosqlite"), "(env.py uses the address of another database"),
        (MissingGreenlet(), "postgresql+psycopg2://{user_quoted}:{password_quoted}@{host}"),
        (KeyError("an item"), "(an environment variable? See DATABASE_URL_ENV and DATABASE_ENV)"),
    ],
    ids=[
        "KeyError",
        "Field required",
        "starlette",
        "decouple",
        "environs",
        "django-environ",
        "dynaconf",
        "another database",
        "an async driver",
        "another key",
    ],
)
def test_an_error_about_a_variable_says_what_to_paste(error: Exception, hint: str) -> None:
    assert hint in advice(error, began=False)
    assert not advice(error, began=True)


class Address(BaseModel):
    url: PostgresDsn


def test_an_address_that_pydantic_rejects_has_an_unescaped_password() -> None:
    with pytest.raises(pydantic.ValidationError) as rejected:
        Address(url=cast("PostgresDsn", "postgresql://me:a@/b?c@h:1/d"))
    assert hints.puts_password_into_url(rejected.value, "a@/b?c")
    assert not hints.puts_password_into_url(rejected.value, "plain")
    with pytest.raises(pydantic.ValidationError) as lacking:
        Address.model_validate({})
    assert not hints.puts_password_into_url(lacking.value, "a@/b?c")


class Postgres(BaseModel):
    """Fields that raise pydantic's own error. pydantic-settings reads the prefix from the same place."""

    model_config = cast("ConfigDict", {"env_prefix": "POSTGRES_"})

    host: str
    db: str
    port: int = 5432
    password: str = ""
    url: str | None = None
    key: str = Field(validation_alias="SHOP_KEY")


def test_the_prefix_of_a_settings_class_is_a_part_of_the_variables() -> None:
    with pytest.raises(pydantic.ValidationError) as failed:
        Postgres()  # type: ignore[call-arg]
    # The port and the password are needed although the class has a default: it is not that of the stage's database.
    parts = {"host": "host", "db": "database", "port": "port", "password": "password"}
    templates = json.dumps({f"POSTGRES_{name.upper()}": f"{{{part}}}" for name, part in parts.items()})
    assert f'{{"DATABASE_ENV": {templates}, "SHOP_KEY": "..."}}' in advice(failed.value, began=False)


READS_PARTS = "import os\nuser, pwd = os.environ['DB_USER'], os.environ['DB_PASSWORD']\n"
ADDRESS = "url = f'postgresql://{user}:{pwd}@h/d'\n"


@pytest.mark.parametrize(
    "escaping, part",
    [("", "user_quoted"), ("from urllib.parse import quote\nuser, pwd = quote(user), quote(pwd)\n", "user")],
    ids=["as it is", "escaped"],
)
def test_a_missing_part_of_an_address_is_suggested_escaped_if_the_module_does_not_escape_it(
    tmp_path: Path, escaping: str, part: str
) -> None:
    file = tmp_path / "env.py"
    file.write_text(f"{READS_PARTS}{escaping}{ADDRESS}")
    with pytest.raises(KeyError) as failed:
        runpy.run_path(str(file))
    assert f'{{"DATABASE_ENV": {{"DB_USER": "{{{part}}}"}}}}' in advice(failed.value, began=False)
