"""The graph that is read from source is the one that Alembic loads by running it."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.package.errors import PackageError
from infra.package.graph import GraphRevision, read_graph

# What each revision builds on, and whether it starts a labelled branch: position n may name positions below n.
Shape = list[tuple[set[int], bool]]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    shape: Shape = []
    for position in range(draw(st.integers(1, 8))):
        parents = draw(st.sets(st.integers(0, position - 1), max_size=2)) if position else set()
        shape.append((parents, draw(st.booleans())))
    return shape


def write(
    directory: Path, id_: str, down: object = None, *, labels: object = None, depends_on: object = None, name: str = ""
) -> Path:
    path = directory / (name or f"{id_}_change.py")
    path.write_text(
        f'"""Change {id_}.\n\nMore words.\n"""\nfrom typing import Sequence, Union\n\nrevision: str = {id_!r}\n'
        f"down_revision: Union[str, Sequence[str], None] = {down!r}\n"
        f"branch_labels = {labels!r}\ndepends_on = {depends_on!r}\n\ndef upgrade() -> None: ...\n",
        encoding="utf-8",
    )
    return path


@settings(max_examples=60, deadline=None)
@given(shapes())
def test_heads_and_parents_are_those_of_alembic(shape: Shape) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        versions = Path(scratch, "versions")
        versions.mkdir()
        for position, (parents, labelled) in enumerate(shape):
            down = tuple(f"r{parent}" for parent in sorted(parents)) or None
            write(versions, f"r{position}", down, labels=(f"b{position}",) if labelled else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = ScriptDirectory(scratch)
            theirs = {one.revision: one for one in script.walk_revisions()}
        graph = read_graph([versions], relative_to=Path(scratch))
    assert set(graph.heads) == set(script.get_heads())
    assert {one.id: set(one.down_revisions) for one in graph.revisions} == {
        id_: set(one._versioned_down_revisions)  # noqa: SLF001  # the public name is str, tuple or None
        for id_, one in theirs.items()
    }
    position_of = {one.id: position for position, one in enumerate(graph.revisions)}
    assert all(position_of[down] < position_of[one.id] for one in graph.revisions for down in one.down_revisions)


def test_a_revision_is_read_whole(tmp_path: Path) -> None:
    write(tmp_path, "a1", labels="billing")
    write(tmp_path, "b2", "a1", depends_on=["a1"])
    graph = read_graph([tmp_path], relative_to=tmp_path)
    assert graph.heads == ("b2",)
    assert graph.revisions[1] == GraphRevision("b2", ("a1",), ("a1",), (), "Change b2.", Path("b2_change.py"))
    assert graph.revisions[0].branch_labels == ("billing",)


def test_what_alembic_passes_over_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a1")
    for name in ("__init__.py", "README", ".#a1_change.py", "data.sql"):
        (tmp_path / name).write_text("this is no revision")
    (tmp_path / "older").mkdir()
    write(tmp_path / "older", "b2", "a1")
    assert read_graph([tmp_path], relative_to=tmp_path).heads == ("a1",)
    assert read_graph([tmp_path], relative_to=tmp_path, recursive=True).heads == ("b2",)


def test_nothing_of_a_revision_is_run(tmp_path: Path) -> None:
    path = write(tmp_path, "a1")
    path.write_text(path.read_text() + "\nraise SystemExit\n")
    assert read_graph([tmp_path], relative_to=tmp_path).heads == ("a1",)


@pytest.mark.parametrize(
    "source, message",
    [
        ("revision = 'a'\ndown_revision = (\n", r"^versions/x\.py:\d: syntax error: .*"),
        ("down_revision = None\n", r"^versions/x\.py does not define `revision`; .*"),
        ("revision = 'a'\n", r"^versions/x\.py does not define `down_revision`; .*"),
        ("revision = make_id()\ndown_revision = None\n", r"^versions/x\.py:1: `revision` cannot be read without .*"),
        ("revision = None\ndown_revision = None\n", r"^versions/x\.py:1: `revision` must be one string"),
        ("revision = 'a'\ndown_revision = 7\n", r"^versions/x\.py:2: `down_revision` cannot be read without .*"),
        ("revision = 'a'\ndown_revision = 'a'\n", r"^the revisions form a cycle: a -> a; .*"),
        ("revision = 'a-b'\ndown_revision = None\n", r"^Alembic cannot load the revisions: .*'-'.*"),
        (
            "revision = 'a'\ndown_revision = None\ndepends_on = 'z'\n",
            r"^revision a .*has depends_on z, which is not .*",
        ),
        ("\0", r"^versions/x\.py.*null byte"),
    ],
)
def test_a_file_that_alembic_cannot_use_is_refused(tmp_path: Path, source: str, message: str) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "x.py").write_text(source)
    with pytest.raises(PackageError, match=message):
        read_graph([versions], relative_to=tmp_path)


def test_a_revision_defined_twice_names_both_files(tmp_path: Path) -> None:
    write(tmp_path, "a1", name="one.py")
    write(tmp_path, "a1", name="two.py")
    with pytest.raises(PackageError, match=r"^revision a1 is defined twice, in one\.py and in two\.py; "):
        read_graph([tmp_path], relative_to=tmp_path)


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    write(tmp_path, "b2", "a1")
    with pytest.raises(
        PackageError, match=r"^revision b2 \(b2_change\.py\) has down_revision a1, which is not in the tree; "
    ):
        read_graph([tmp_path], relative_to=tmp_path)


def test_a_cycle_is_shown(tmp_path: Path) -> None:
    write(tmp_path, "a1")
    write(tmp_path, "b2", "c3")
    write(tmp_path, "c3", "b2")
    with pytest.raises(PackageError, match=r"^the revisions form a cycle: (b2 -> c3 -> b2|c3 -> b2 -> c3); "):
        read_graph([tmp_path], relative_to=tmp_path)


def test_heads_need_no_branch_label(tmp_path: Path) -> None:
    write(tmp_path, "a1", labels="all")
    write(tmp_path, "c3", "a1")
    write(tmp_path, "b2", "a1")
    assert read_graph([tmp_path], relative_to=tmp_path).heads == ("b2", "c3")


def test_labelled_branches_are_meant(tmp_path: Path) -> None:
    write(tmp_path, "a1")
    write(tmp_path, "b2", "a1", labels=("billing",))
    write(tmp_path, "b3", "b2")
    write(tmp_path, "c3", "a1")
    assert read_graph([tmp_path], relative_to=tmp_path).heads == ("b3", "c3")
