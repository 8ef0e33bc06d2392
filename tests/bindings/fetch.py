"""Make TensorRT's own Python bindings importable where TensorRT is not: `python tests/bindings/fetch.py DIR`.

The wheels on PyPI hold one extension module each, which needs about ten C functions of TensorRT's libraries. Stub
libraries with functions of those names are enough to import it, to look at its classes and enums, and to subclass them:

    DIR/10.0.1/site   tensorrt_bindings from the wheel, and `tensorrt`, which re-exports it    → PYTHONPATH
    DIR/10.0.1/lib    libnvinfer.so.10 and the others that it needs, as stubs                  → LD_LIBRARY_PATH
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

TOOLS = ("gcc", "nm", "readelf")
SYSTEM = re.compile(r"lib(stdc\+\+|gcc_s|m|c|rt|dl|pthread)\.so|ld-linux")
"""Libraries of the compiler and the C library, which are there."""
STAMP = "python"
"""Written with the version's folder: the Python that its extension module is for."""
TENSORRT = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"


@dataclass(frozen=True, slots=True)
class Release:
    """A package on PyPI, and what `getInferLibVersion` says in the TensorRT of that version."""

    package: str
    version: str
    number: int


RELEASES = (
    Release("tensorrt-bindings", "8.6.1", 8601),
    Release("tensorrt-cu12-bindings", "10.0.1", 100001),
    Release("tensorrt-cu12-bindings", "10.16.1.11", 101601),
    Release("tensorrt-cu12-bindings", "11.4.0.106", 110400),
)


class NoWheelError(Exception):
    """The index has no wheel of this version for the running Python."""


def is_complete(folder: Path) -> bool:
    """Whether a version is there, made for the running Python; it gets its name only once it is whole."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text() == sys.implementation.cache_tag


def make(release: Release, folder: Path) -> None:
    """Build the version beside its place, and move it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder.parent) as scratch:
        built = Path(scratch, "built")
        with zipfile.ZipFile(download(release, Path(scratch))) as wheel:
            wheel.extractall(built / "site")
        write_packages(built / "site")
        write_stubs(built / "site/tensorrt_bindings/tensorrt.so", built / "lib", release.number)
        (built / STAMP).write_text(str(sys.implementation.cache_tag))
        if folder.exists():
            shutil.rmtree(folder)
        built.rename(folder)


def download(release: Release, folder: Path) -> Path:
    """The wheel that pip chooses for the running Python."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-input", "--no-deps", "--only-binary=:all:"]
    requirement = f"{release.package}=={release.version}"
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--retries=2", f"--dest={folder}", requirement],
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return next(folder.glob("*.whl"))
    # Where the index can't be reached, pip says so while retrying and then finds nothing as well.
    if "No matching distribution found" in done.stderr and "Retrying" not in done.stderr:
        raise NoWheelError(f"pip finds no wheel of {requirement} for {sys.implementation.cache_tag}")
    sys.exit(f"pip could not download {requirement}:\n{done.stderr.strip()}")


def write_packages(site: Path) -> None:
    """`tensorrt` as its meta-package has it; an empty `tensorrt_libs` hides an installed one, which loads libraries."""
    for package, text in (("tensorrt", TENSORRT), ("tensorrt_libs", "")):
        (site / package).mkdir()
        (site / package / "__init__.py").write_text(text)


def write_stubs(extension: Path, folder: Path, number: int) -> None:
    """Compile each library that the extension module needs.

    An ELF file doesn't say which of them a function is from, so each stub has all of them. 0 is a null pointer too.
    """
    functions = [f"long {name}(void) {{ return 0; }}" for name in missing_functions(extension)]
    functions.append(f"int getInferLibVersion(void) {{ return {number}; }}")
    folder.mkdir()
    for soname in needed_libraries(extension):
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-x", "c", "-", "-o", str(folder / soname)],
            input="\n".join(functions) + "\n",
            text=True,
            check=True,
        )


def missing_functions(extension: Path) -> list[str]:
    """What nobody provides: neither weak nor versioned (libstdc++), nor part of the running Python and its libc."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True)
    process = ctypes.CDLL(None)
    return [name for name in re.findall(r" U ([^@\s]+)$", listed.stdout, re.MULTILINE) if not hasattr(process, name)]


def needed_libraries(extension: Path) -> list[str]:
    """The sonames that the extension module asks for, without the system's."""
    listed = subprocess.run(["readelf", "-dW", extension], capture_output=True, text=True, check=True)
    sonames: list[str] = re.findall(r"\(NEEDED\).*\[(.+)\]", listed.stdout)
    return [soname for soname in sonames if not SYSTEM.match(soname)]


def main(arguments: list[str]) -> None:
    """Make what is not there yet."""
    if len(arguments) != 1:
        sys.exit("usage: python tests/bindings/fetch.py DIR")
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        sys.exit(f"not installed: {', '.join(absent)}")
    home = Path(arguments[0]).resolve()
    for release in RELEASES:
        folder = home / release.version
        try:
            if not is_complete(folder):
                make(release, folder)
        except NoWheelError as error:
            sys.stderr.write(f"{release.version}: skipped, {error}\n")
    if not any(is_complete(home / release.version) for release in RELEASES):
        sys.exit(f"{home}: no version of the bindings could be made")


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C"  # the messages of pip's and binutils' that are read
    main(sys.argv[1:])
