"""Reads the revisions of another branch from git."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.package.revision_file import is_revision_file
from migrate_review.errors import ReviewError
from migrate_review.revisions.tree import RevisionSource, heads_of, read_revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from migrate_review.revisions.tree import Tree


@dataclass(frozen=True)
class Released:
    """The revisions that are already on a branch.

    ``base`` are those at the merge base with HEAD. ``tip`` and ``heads`` are those of the branch's last commit.
    """

    ref: str
    base: Mapping[str, RevisionSource]
    heads: tuple[str, ...]
    tip: frozenset[str]

    def new(self, tree: Tree) -> tuple[RevisionSource, ...]:
        """Return the tree's revisions that are not on the branch, committed or not."""
        return tuple(revision for revision in tree.revisions if revision.id not in self.base.keys() | self.tip)


def released(tree: Tree, ref: str) -> Released:
    """Return the revisions at the branch, tag or commit ``ref``.

    Raises:
        ReviewError: the backend is in no git repository, or the repository lacks the commits.
    """
    root = Path(_git(tree.backend, "rev-parse", "--show-toplevel", otherwise="--since needs a git repository").strip())
    tip = _git(
        root,
        *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"),
        otherwise=f"git does not know {ref}; fetch it: git fetch origin, and in GitHub Actions check out with"
        " fetch-depth: 0",
    ).strip()
    base = _git(
        root,
        *("merge-base", tip, "HEAD"),
        otherwise=f"git does not know where HEAD left {ref}; fetch the history: git fetch --unshallow, and in GitHub"
        " Actions check out with fetch-depth: 0",
    ).strip()
    at_base = _revisions(root, base, tree)
    at_tip = at_base if base == tip else _revisions(root, tip, tree)
    return Released(ref, at_base, heads_of(at_tip.values()), frozenset(at_tip))


def _revisions(root: Path, commit: str, tree: Tree) -> dict[str, RevisionSource]:
    directories = [path.resolve().relative_to(root.resolve()).as_posix() for path in tree.version_locations]
    # One record is "mode type id<TAB>path".
    listed = _git(
        root, "ls-tree", "-r", "-z", "--full-tree", commit, "--", *directories, otherwise="git ls-tree failed"
    )
    files = [record.partition("\t") for record in listed.split("\0") if record]
    blobs = {path: entry.split()[2] for entry, _, path in files if is_revision_file(Path(path).name)}
    read = (
        read_revision(root / path, text)
        for path, text in zip(blobs, _contents(root, list(blobs.values())), strict=True)
    )
    return {revision.id: revision for revision in read if isinstance(revision, RevisionSource)}


def _contents(root: Path, blobs: Sequence[str]) -> Iterator[str]:
    """Yield the contents of blobs, read by one process."""
    if not blobs:
        return
    answer = subprocess.run(
        ["git", "cat-file", "--batch"],  # noqa: S607 - the git that is used here
        cwd=root,
        input="\n".join(blobs).encode(),
        capture_output=True,
        check=True,
    ).stdout
    for _ in blobs:
        header, _, answer = answer.partition(b"\n")
        size = int(header.split()[2])
        yield answer[:size].decode("utf-8", errors="replace")
        answer = answer[size + 1 :]


def _git(directory: Path, *arguments: str, otherwise: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - no shell; a reference is kept from being an option
            ["git", "-C", str(directory), *arguments],  # noqa: S607 - the git that is used here
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise ReviewError("--since needs git, which is not installed") from error
    if answer.returncode:
        stderr = " ".join(answer.stderr.split())
        raise ReviewError(f"{otherwise} ({stderr})" if stderr else otherwise)
    return answer.stdout
