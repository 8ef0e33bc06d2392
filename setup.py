"""The compiled kernels, and the README as a package index can show it; everything else is in pyproject.toml.

The extensions are optional: without a C compiler the package installs all the same and works with numpy.
"""

import os
import re
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)\[([^]]*)\]\((?!\w+:)([^)\s]+)\)")


def index_readme(text: str, repository: "str | None", tag: str) -> str:
    """The README with relative links leading to the repository; without one, links are text and pictures left out."""

    def absolute(match: "re.Match[str]") -> str:
        picture, label, target = match.groups()
        if repository is None:
            return "" if picture else label
        return f"{picture}[{label}]({repository.rstrip('/')}/{'raw' if picture else 'blob'}/{tag}/{target})"

    return LINK.sub(absolute, text)


def described() -> str:
    """The README of this version, for the repository that pyproject.toml declares."""
    repository = re.search(r'^Repository = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    version = re.search(r'__version__ = "(.+)"', (ROOT / "quantkit/_version.py").read_text("utf-8"))
    readme = (ROOT / "README.md").read_text("utf-8")
    return index_readme(readme, repository and repository[1], f"v{version[1] if version else ''}")


# Without fused products, which round once instead of twice, numpy and the kernels find the same bits. MSVC fuses none,
# and has no such option.
FLAGS = ["-O3", *(["-ffp-contract=off"] if os.name == "posix" else [])]

if __name__ == "__main__":
    setup(
        long_description=described(),
        long_description_content_type="text/markdown",
        ext_modules=[
            Extension(
                f"quantkit.{name}",
                sources=[f"quantkit/{name}.c"],
                extra_compile_args=FLAGS,
                optional=True,
            )
            for name in ("_kernel", "_rounding")
        ],
    )
