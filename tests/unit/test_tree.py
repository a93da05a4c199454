"""The graph that Alembic gets from the manifest is smaller than the tree and gives the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_migrate.env_py import tree
from lambda_migrate.env_py.tree import PackagedGraph
from lambda_migrate.revisions.manifest import Manifest, PackagedRevision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Graph = dict[str, PackagedRevision]


def revision(name: str, downs: Sequence[str], depends_on: Sequence[str] = ()) -> PackagedRevision:
    return PackagedRevision(name, downs, depends_on, (), f"Revision {name}", f"{name}.py", "")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Trees with branches, merges, several bases and dependencies, a line for the most part."""
    graph: Graph = {}
    for number in range(draw(st.integers(1, 12))):
        names = list(graph)
        kind = draw(st.sampled_from(["line", "line", "line", "branch", "merge", "base", "depends"]))
        if not names or kind == "base":
            downs: list[str] = []
        elif kind == "merge":
            downs = heads(graph)
        else:
            downs = [draw(st.sampled_from(names))] if kind == "branch" else [names[-1]]
        others = [name for name in names if name not in downs]
        depends = [draw(st.sampled_from(others))] if kind == "depends" and others else []
        graph[f"r{number}"] = revision(f"r{number}", downs, depends)
    return graph


def heads(graph: Mapping[str, PackagedRevision]) -> list[str]:
    below = {down for node in graph.values() for down in node.down_revisions}
    return [name for name in graph if name not in below]


def packaged(graph: Graph) -> tuple[ScriptDirectory, PackagedGraph]:
    manifest = Manifest(tuple(heads(graph)), len(graph), "", "", (), False, "", "", "", "", "3.13", None)  # noqa: FBT003
    known = PackagedGraph(manifest, graph, Path())
    script = ScriptDirectory(str(Path(__file__).parent))
    script.revision_map = known.whole()
    return script, known


@given(graph=graphs(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_the_pending_revisions_are_the_same_with_the_whole_tree_and_with_a_part(
    graph: Graph, data: st.DataObject
) -> None:
    # A database on its way up the tree: what is applied is closed under what it builds on.
    applied = list(graph)[: data.draw(st.integers(0, len(graph)))]
    depended = {down for name in applied for down in (*graph[name].down_revisions, *graph[name].depends_on)}
    current = sorted(name for name in applied if name not in depended)
    wanted = data.draw(st.sampled_from(["heads", "head", *graph]))
    whole, _ = packaged(graph)
    narrow, known = packaged(graph)

    tree.narrow(narrow, known, wanted, current)

    assert ids(narrow, current) == ids(whole, current)


def ids(script: ScriptDirectory, current: Sequence[str]) -> list[str]:
    return [one.revision for one in tree.pending(script, current)]


def test_in_a_linear_history_alembic_loads_no_applied_revision() -> None:
    script, graph = packaged({f"r{n}": revision(f"r{n}", [f"r{n - 1}"] if n else []) for n in range(1000)})

    tree.narrow(script, graph, "head", ["r997"])

    assert [one.revision for one in tree.pending(script, ["r997"])] == ["r998", "r999"]
    assert not tree.are_known(script, ["r996"])


def test_a_revision_that_is_not_above_the_database_is_left_to_alembic() -> None:
    script, graph = packaged({f"r{n}": revision(f"r{n}", [f"r{n - 1}"] if n else []) for n in range(9)})

    tree.narrow(script, graph, "r3", ["r5"])

    assert tree.are_known(script, ["r3"])
