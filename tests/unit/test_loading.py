"""Loading libraries without a look for garbage, which a warm sandbox goes on to need."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.invocation.loading import loading

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_a_sandbox_begins() -> Iterator[None]:
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
