"""What a release is made of: its version in every place, the files that a wheel takes along."""

from __future__ import annotations

import datetime
import glob
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import quantkit
from quantkit.extras import EXTRAS, install_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
CITATION_KEYS = {
    "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords",
    "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact",
    "repository-code", "title", "type", "url", "version",
}  # fmt: skip
"""The keys of schema 1.2.0, github.com/citation-file-format/citation-file-format."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_is_one(citation: dict[str, Any]) -> None:
    assert citation.keys() <= CITATION_KEYS
    assert citation["cff-version"] == "1.2.0"
    assert all(citation[key] for key in ("message", "title", "authors"))
    assert all(author.keys() <= {"name", "family-names", "given-names", "orcid"} for author in citation["authors"])
    assert citation["type"] == "software"
    assert isinstance(citation["date-released"], datetime.date)


def test_it_tells_of_this_version(citation: dict[str, Any], project: dict[str, Any]) -> None:
    assert citation["version"] == quantkit.__version__
    assert citation["license"] == project["project"]["license"]
    newest = re.search(r"^## \[([^]]+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == quantkit.__version__
    assert newest[2] == citation["date-released"].isoformat()


def test_versions_of_the_changelog_are_dated_and_descend() -> None:
    heads = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", head) for head in heads]
    assert all(found), heads
    order = [(*map(int, match.groups()[:3]), match[4]) for match in found if match]
    assert order == sorted(order, reverse=True)


def test_a_wheel_takes_every_file_of_the_package_along(project: dict[str, Any]) -> None:
    listed = subprocess.run(["git", "ls-files", "quantkit"], cwd=ROOT, capture_output=True, text=True, check=False)
    others = {name.removeprefix("quantkit/") for name in listed.stdout.split() if not name.endswith((".py", ".c"))}
    globs = project["tool"]["setuptools"]["package-data"]["quantkit"]
    taken = {name for pattern in globs for name in glob.glob(pattern, root_dir=ROOT / "quantkit", recursive=True)}
    assert others <= taken, f"pyproject.toml's package-data has no pattern for {sorted(others - taken)}"


def test_the_package_works_from_a_zip_file(tmp_path: Path) -> None:
    """Without the compiled kernel, which no zip file can hold: numpy computes the same."""
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in sorted((ROOT / "quantkit").rglob("*")):
            if path.is_file() and path.suffix not in (".so", ".pyc"):
                archive.write(path, path.relative_to(ROOT))
    script = (
        "import quantkit; assert 'package.zip' in quantkit.__file__; print(quantkit.PRESETS['unit'], quantkit.Mse())"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "package.zip")}
    for arguments in (["-c", script], ["-m", "quantkit", "evaluate", "--help"]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_licences_are_there(project: dict[str, Any]) -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0" in text
    assert project["project"]["license"] == "Apache-2.0"
    assert project["project"]["license-files"] == ["LICENSE"]
    assert "CC BY 4.0" in (ROOT / "calibration_data" / "LICENSE-images.txt").read_text(encoding="utf-8")


def test_nothing_installs_a_strangers_package() -> None:
    """`quantkit` on the package index belongs to somebody else; ours is `quantkit-trt`, installed from the clone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pages = [
        ROOT / name for name in listed if Path(name).suffix in {".md", ".py", ".ipynb", ".template", ".toml", ".yml"}
    ]
    bare = re.compile(r"pip3? install[^\n`&;]*?[ '\"]quantkit(?![\w-])")
    found = [f"{page.name}: {m[0]}" for page in pages for m in bare.finditer(page.read_text(encoding="utf-8"))]
    assert not found


def test_messages_install_what_the_extras_install(project: dict[str, Any]) -> None:
    stated = project["project"]["optional-dependencies"]
    assert {name: list(requirements) for name, requirements in EXTRAS.items()} == {
        name: stated[name] for name in EXTRAS
    }
    assert install_command("detection") == "pip install 'pycocotools>=2.0.7'"
    assert install_command("notebook", "matplotlib") == "pip install 'matplotlib>=3.7'"
