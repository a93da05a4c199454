"""Modules that are imported when a run needs them: how they are loaded, and which modules may load them."""

from __future__ import annotations

import ast
import gc
import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest
from importlinter.api import read_configuration

from lambda_migrate.actions import perform
from lambda_migrate.invocation.loading import loading
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_an_execution_environment_begins() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


def test_garbage_is_not_looked_for_while_something_loads_and_is_again_afterwards() -> None:
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_was_switched_off_stays_off() -> None:
    gc.disable()
    with loading():
        pass
    assert not gc.isenabled()


def test_what_was_loaded_is_kept_and_what_a_warm_run_left_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with loading():
        pass
    assert gc.get_freeze_count() == 0

    with loading():
        monkeypatch.setitem(sys.modules, "something_new", sys)
    assert gc.get_freeze_count() > 0


def test_a_library_that_is_missing_leaves_everything_as_it_was() -> None:
    with pytest.raises(ModuleNotFoundError), loading():
        import there_is_none_of_this_name  # type: ignore[import-not-found] # noqa: F401, PLC0415
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, 0)


def loads_at_run_time() -> dict[str, list[str]]:
    """The modules of the function that each of its modules loads by name."""
    found = {"lambda_migrate.actions.perform": [*perform.MODULES.values()]}
    for file in sorted((ROOT / "lambda_migrate").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load":
                names = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
                found.setdefault(module, []).extend(name for name in names if name.startswith("lambda_migrate."))
    return {module: loaded for module, loaded in found.items() if loaded}


def test_a_module_is_loaded_from_its_own_package_or_from_above() -> None:
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    [layers] = [each["layers"] for each in contracts if each.get("containers") == ["lambda_migrate"]]
    place = {package: number for number, layer in enumerate(layers) for package in layer.split(" | ")}
    loads = loads_at_run_time()

    assert "lambda_migrate.run.start" in loads
    for module, loaded in loads.items():
        for name in loaded:
            assert importlib.util.find_spec(name), name
            assert place[name.split(".")[1]] >= place[module.split(".")[1]], f"{module} loads {name}"
