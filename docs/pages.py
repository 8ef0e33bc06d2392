"""What mkdocs is told about the pages: files beside docs/ that belong to the site, and how GitHub's links become the
site's.

Pages are written to be read in the repository. There a link to a measured result leads out of docs/; the site takes
these files along, and links are turned to where they lie in it.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\(|^\[\w+\]: )(?!\w+:)([^()#\s]+)", re.MULTILINE)
PICTURE = re.compile(r"(!\[[^]]*\])\((images/[\w-]+)\.png\)")
FENCE = re.compile(r"^```(console|python) \w.*$", re.MULTILINE)
BESIDE = {
    "CHANGELOG.md": "changelog.md",
    "examples/github-actions/int8.yml": "examples/int8.yml",
    "examples/docker/Dockerfile": "examples/Dockerfile",
    "skills/quantkit/SKILL.md": "skill.md",
}
"""Path in the repository → path in the site, of files that pages link to."""


def outside() -> dict[str, str]:
    """Files outside docs/ that the site holds: path in the repository → path in the site."""
    results = sorted(path for path in (ROOT / "benchmarks/results").iterdir() if path.suffix in (".md", ".json"))
    return BESIDE | {f"benchmarks/results/{p.name}": f"results/{p.name}" for p in results}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The link to the repository, if pyproject.toml declares one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.repo_url = project.get("urls", {}).get("Repository")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/."""
    from mkdocs.structure.files import File

    for source, target in outside().items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with the site's links and pictures, and without the marks of blocks for the tests."""
    del config, files
    drawn = PICTURE.sub(both_modes, FENCE.sub(r"```\1", markdown))
    return LINK.sub(lambda match: match[1] + turned(match[2], page.file.src_uri), drawn)


def both_modes(match: re.Match[str]) -> str:
    """A picture as it is, or where there is a dark one, the one that fits the mode."""
    alt, name = match.groups()
    if not (ROOT / f"docs/{name}-dark.png").exists():
        return match[0]
    return f"{alt}({name}.png#only-light){alt}({name}-dark.png#only-dark)"


def turned(link: str, page: str) -> str:
    """A relative link of a page as it is in the site."""
    places = outside()
    here = {target: source for source, target in places.items()}.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    there = places.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
    return link if there is None else posixpath.relpath(there, posixpath.dirname(page) or ".")
