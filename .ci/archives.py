"""Checks what is in the sdist and the wheel of a folder: every tracked file of the package, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
MADE = re.compile(r"PKG-INFO|setup\.cfg|quantkit_trt\.egg-info/.*")
COMPILED = re.compile(r"quantkit/_(?:kernel|rounding)\.[\w.-]+\.(so|pyd)")
RECORDS = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}


def tracked() -> set[str]:
    """The package's files, as git knows them."""
    listed = subprocess.run(["git", "ls-files", "quantkit"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def in_sdist(path: Path) -> set[str]:
    """The files of an sdist, below its folder."""
    with tarfile.open(path) as archive:
        return {member.name.split("/", 1)[1] for member in archive if member.isfile()}


def in_wheel(path: Path) -> set[str]:
    """The files of a wheel; those that tell of it without the folder's name."""
    with zipfile.ZipFile(path) as archive:
        return {re.sub(r"^quantkit_trt-[^/]*\.dist-info/", "", name) for name in archive.namelist()}


def difference(path: Path, found: set[str], wanted: set[str]) -> str:
    """What is too much and what is missing in an archive; nothing where it is right."""
    lines = [f"  too much: {name}" for name in sorted(found - wanted)]
    lines += [f"  missing: {name}" for name in sorted(wanted - found)]
    return "\n".join([path.name, *lines]) if lines else ""


def main(folder: Path) -> str:
    """What is wrong with the one sdist and the one wheel in a folder; nothing where all is well."""
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    package = tracked()
    source = {name for name in in_sdist(sdist) if not MADE.fullmatch(name)}
    installed = {name for name in in_wheel(wheel) if not COMPILED.fullmatch(name)}
    wanted = {name for name in package if not name.endswith(".c")} | RECORDS
    return difference(sdist, source, package | BESIDE) or difference(wheel, installed, wanted)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) or None)
