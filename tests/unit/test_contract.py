"""Which events are requests, and which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from lambda_migrate.invocation.errors import InvalidRequest
from lambda_migrate.invocation.request import ACTIONS, Request, Target, parse_request
from lambda_migrate.invocation.result import joined
from tests.support.events import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("event", [None, {}, {"action": "upgrade"}, {"revision": "head"}])
def test_an_empty_event_means_upgrade_to_head(event: object) -> None:
    assert parse_request(event) == Request(action="upgrade", revision="head")


@pytest.mark.parametrize("revision", ["head", "heads", "1f0c2d3e4a5b", "+1", "+12", "0001", "add_users"])
def test_an_upgrade_goes_to_head_heads_an_id_or_so_many_further(revision: str) -> None:
    assert parse_request({"action": "upgrade", "revision": revision}).revision == revision


@pytest.mark.parametrize(
    "event,part",
    [
        ([], "an array"),
        ("upgrade", "a string"),
        (7, "a number"),
        (False, "a boolean"),
        ({"action": "Upgrade"}, "unknown action 'Upgrade'; known: "),
        ({"action": None}, "unknown action None"),
        ({"action": ["upgrade"]}, "unknown action"),
        ({"revison": "head"}, "unknown field 'revison' for action upgrade; known: action, preflight, revision"),
        ({"revision": ""}, "revision must be head, heads, a revision id or +N, not ''"),
        ({"revision": None}, "not None"),
        ({"revision": 5}, "not 5"),
        ({"revision": "+0"}, "not '+0'"),
        ({"revision": "-1"}, "not '-1'"),
        ({"revision": "a b"}, "not 'a b'"),
        ({"revision": "head\n"}, "not 'head\\n'"),
        ({"revision": "x" * 300}, "..."),
    ],
)
def test_a_wrong_event_is_refused_in_one_line_with_the_reason(event: object, part: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(event)
    assert part in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.stress
def test_whatever_comes_in_is_a_valid_request_or_refused(rounds: Callable[[int, int], int]) -> None:
    @settings(max_examples=rounds(200, 20_000))
    @given(EVENTS)
    def parse(event: object) -> None:
        try:
            request = parse_request(event)
        except InvalidRequest as refused:
            assert str(refused).isprintable()
        else:
            given = event or {}
            assert isinstance(given, dict)
            assert request.action == given.get("action", "upgrade")
            assert set(given) <= ACTIONS[request.action] | {"action", "target"}

    parse()


@pytest.mark.parametrize(
    "event,request_",
    [
        ({"action": "status"}, Request("status")),
        ({"action": "plan", "revision": "+3"}, Request("plan", "+3")),
        ({"action": "downgrade", "revision": "base", "confirm": "a1"}, Request("downgrade", "base", "a1")),
        ({"action": "downgrade", "revision": "-1", "confirm": "a1,b2"}, Request("downgrade", "-1", "a1,b2")),
        ({"action": "stamp", "revision": "heads", "confirm": None}, Request("stamp", "heads")),
        ({"target": {"schema": "tenant_7"}}, Request(target=Target(schema="tenant_7"))),
        ({"target": {"secret_id": "s", "database": "d"}}, Request(target=Target("s", "d"))),
        ({"target": {}}, Request()),
    ],
)
def test_each_action_has_its_own_fields(event: object, request_: Request) -> None:
    assert parse_request(event) == request_


@pytest.mark.parametrize(
    "event",
    [
        {"action": "status", "revision": "head"},
        {"action": "upgrade", "confirm": "a1"},
        {"action": "upgrade", "revision": "base"},
        {"action": "downgrade", "confirm": "a1"},
        {"action": "downgrade", "revision": "head", "confirm": "a1"},
        {"action": "downgrade", "revision": "+1", "confirm": "a1"},
        {"action": "stamp", "confirm": "a1"},
        {"action": "stamp", "revision": "a1", "confirm": 1},
        {"target": None},
        {"target": "tenant"},
        {"target": {"scheme": "tenant"}},
        {"target": {"schema": ""}},
        {"target": {"schema": 7}},
        {"target": {"schema": "x" * 64}},
        {"target": {"database": "a\x00b"}},
        {"target": {"schema": "\ud800"}},
        {"action": "report", "rollout": {"name": "\ud800"}},
    ],
)
def test_a_field_that_an_action_does_not_take_is_refused(event: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_request(event)


def test_several_heads_are_one_sorted_text() -> None:
    assert joined(("b", "a")) == "a,b"
    assert joined(()) is None
