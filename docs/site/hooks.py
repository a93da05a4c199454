"""What MkDocs needs to show pages that are written for GitHub.

README.md and back/README.md become pages of the site. Links to files outside docs/ lead to the repository. Lists get
the indentation that Python-Markdown wants.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Pages that lie elsewhere, by their names in the site.
ELSEWHERE = {"index.md": "README.md", "back.md": "back/README.md"}

_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_ITEM = re.compile(r"( *)(?:\d+\.|[-*]) +")


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401 - MkDocs' own types
    """Add the pages that lie elsewhere."""
    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:  # noqa: ANN401
    """Change the links and lists of one page."""
    source = PurePosixPath(ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def link(found: re.Match[str]) -> str:
        return f"{found[1]}{_target(source.parent, found[2], config['repo_url'])}{found[3]}"

    return "\n".join(_indented(_LINK.sub(link, markdown).splitlines()))


def _target(folder: PurePosixPath, link: str, repository: str) -> str:
    """Return where a link leads in the site, or in the repository."""
    if "://" in link or link.startswith("mailto:"):
        return link
    file = (ROOT / folder / link).resolve().relative_to(ROOT)
    for name, path in ELSEWHERE.items():
        if file == Path(path):
            return name
    if file.parts[0] == "docs" and "examples" not in file.parts:
        return file.relative_to("docs").as_posix()
    kind = "tree" if (ROOT / file).is_dir() else "blob"
    return f"{repository}/{kind}/main/{file.as_posix()}"


def _indented(lines: list[str]) -> list[str]:
    """Return the lines with four spaces for each level of a list, which is what Python-Markdown nests by."""
    found: list[str] = []
    width = 0  # of what the text of the current list item is indented by
    fenced = False
    for line in lines:
        inside = line.startswith(" " * width) if width else False
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if not fenced and (item := _ITEM.match(line)) and not item[1]:
            width = len(item[0])
        elif width and line.strip() and not inside and not fenced:
            # A line that is not indented may go on the item's paragraph; after an empty line it ends the list.
            width = 0 if not found or not found[-1].strip() else width
        elif width and inside and line.strip():
            found.append("    " + line[width:])
            continue
        found.append(line)
    return found
