"""Events of every kind: valid ones, typos, and arbitrary ones."""

from __future__ import annotations

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
_REVISIONS = st.sampled_from(["head", "heads", "base", "+1", "-1", "+0", "a1", "b2", "c3", "a1,b2", "nosuch", ""])
_TARGETS = st.fixed_dictionaries(
    {},
    optional={
        "secret_id": st.sampled_from(["no/such/secret", ""]) | st.text(max_size=8),
        "database": st.sampled_from(["nowhere", ""]) | st.text(max_size=8),
        "schema": st.sampled_from(["public", "nowhere", "x" * 64]) | st.text(max_size=8),
        "scheme": JSON,
    },
)
_ACTIONS = st.sampled_from(
    ["upgrade", "plan", "status", "history", "doctor", "check", "downgrade", "stamp", "Upgrade", "migrate", ""]
)
# Most have the shape of a request; each field may be right, wrong, or something else altogether.
EVENTS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "action": _ACTIONS | JSON,
        "revision": _REVISIONS | JSON,
        "confirm": _REVISIONS | JSON,
        "target": _TARGETS | JSON,
        "revison": JSON,
    },
)
