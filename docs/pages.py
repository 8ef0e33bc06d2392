"""What mkdocs is told about the pages: files beside docs/ that belong to the site, and how GitHub's links become the
site's.

Pages are written to be read in the repository. There a link to a measured result leads out of docs/; the site takes
these files along, and links are turned to where they lie in it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\(|^\[\w+\]: )(?!\w+:)([^()#\s]+)", re.MULTILINE)
FENCE = re.compile(r"^```(console|python) gpu$", re.MULTILINE)


def outside() -> dict[str, str]:
    """Files outside docs/ that the site holds: path in the repository → path in the site."""
    results = sorted(path for path in (ROOT / "benchmarks/results").iterdir() if path.suffix in (".md", ".json"))
    return {"CHANGELOG.md": "changelog.md"} | {f"benchmarks/results/{p.name}": f"results/{p.name}" for p in results}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/."""
    from mkdocs.structure.files import File

    for source, target in outside().items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with the site's links, and without the mark of blocks that need a GPU."""
    del config, files
    return LINK.sub(lambda match: match[1] + turned(match[2], page.file.src_uri), FENCE.sub(r"```\1", markdown))


def turned(link: str, page: str) -> str:
    """A relative link of a page as it is in the site."""
    places = outside()
    here = {target: source for source, target in places.items()}.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    there = places.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
    return link if there is None else posixpath.relpath(there, posixpath.dirname(page) or ".")
