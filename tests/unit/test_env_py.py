"""The env.py files that need not run if nothing is pending. See also tests/support/env_py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from infra.package.env_py import has_loop, why_env_py_is_needed
from tests.support.trees import ENV_PY

_SPEC = importlib.util.find_spec("alembic")
assert _SPEC is not None
assert _SPEC.origin is not None
TEMPLATES = Path(_SPEC.origin).parent / "templates"
REFERENCE = Path(__file__).resolve().parents[2] / "back" / "alembic" / "env.py"

CONFIGURE = "context.configure(connection=connection, target_metadata=target_metadata"


@pytest.mark.parametrize("template", ["generic", "async", "pyproject", "pyproject_async"])
def test_alembic_s_own_templates_need_no_run_of_env_py(template: str) -> None:
    assert why_env_py_is_needed((TEMPLATES / template / "env.py").read_text(), []) is None


def test_the_reference_backend_needs_no_run_of_env_py() -> None:
    assert why_env_py_is_needed(REFERENCE.read_text(), ["Base = DeclarativeBase()"]) is None


@pytest.mark.parametrize(
    "changed, reason",
    [
        (ENV_PY.replace(CONFIGURE, f"{CONFIGURE}, version_table='mine'"), "version_table"),
        (ENV_PY.replace(CONFIGURE, f"{CONFIGURE}, version_table_schema='x'"), "version_table"),
        (ENV_PY.replace(CONFIGURE, f"{CONFIGURE}, **options"), "not written there"),
        (ENV_PY.replace(CONFIGURE, f"{CONFIGURE}, on_version_apply=note"), "on_version_apply"),
        (ENV_PY.replace("poolclass", "connect_args={'options': '-csearch_path=x'}, poolclass"), "connect_args"),
        (ENV_PY.replace('os.environ["DATABASE_URL"]', 'os.environ["URL"] + "?options=-csearch"'), "options="),
        (
            ENV_PY.replace("        context.conf", "        connection.execute(sa.text('x'))\n        context.conf"),
            "execute",
        ),
        (
            ENV_PY.replace("        context.conf", "        prepare(connection)\n        context.conf"),
            "connection to prepare",
        ),
        (ENV_PY.replace("else:\n    run_mi", "else:\n  for tenant in tenants:\n    run_mi"), "loop"),
        (
            ENV_PY.replace("            context.run_mi", "            for _ in 'ab':\n                context.run_mi"),
            "loop",
        ),
        (ENV_PY.replace("context.configure(", "configure("), "itself"),
        ("from app.migrations import run\nrun()\n", "itself"),
        ("def (", "parsed"),
    ],
)
def test_an_env_py_that_may_keep_the_version_elsewhere_or_do_more_is_run(changed: str, reason: str) -> None:
    found = why_env_py_is_needed(changed, [])
    assert changed != ENV_PY
    assert reason in (found or "")


def test_a_loop_over_tenants_or_databases_is_seen() -> None:
    assert has_loop(ENV_PY.replace("else:\n    run_mi", "else:\n  for tenant in tenants:\n    run_mi"))
    assert has_loop((TEMPLATES / "multidb" / "env.py").read_text())
    assert not any(has_loop((TEMPLATES / name / "env.py").read_text()) for name in ("generic", "async"))


def test_what_the_backend_s_modules_do_to_names_counts_too() -> None:
    module = (
        '@event.listens_for(Engine, "connect")\ndef connected(c, _): c.cursor().execute("SET search_path = tenant")'
    )
    assert "search_path" in (why_env_py_is_needed(ENV_PY, ["x = 1", module]) or "")
