"""Everything that a reader can copy from the README and the pages in docs/ is executed here.

A block marked `console` holds commands behind `$ ` and what they print, standard error included; `...` stands for any
lines, `[1]` for the exit code of a command that fails. Decibels, which are figures with one decimal, may differ by one
in it: another CPU sums in another order, and a value on the edge of a step rounds to its other side. A block marked
`python` has to run, one marked `toml` has to be a preprocessing spec. All blocks of all pages run in one scratch
folder, in the order in which the site lists the pages. Blocks marked `gpu` besides run where a GPU with TensorRT is;
elsewhere commands have to parse, and Python to compile. Blocks marked `elsewhere` need large data, and only have to
parse. Blocks marked `torch`, `tensorflow`, `rtx` or `ray` run, in order, where that is installed; a Python block's
third word names the file it lies in.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantkit.errors import BackendError
from quantkit.preprocess import load_preprocess
from tests.support.command_line import transcript_in

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])


def has_gpu() -> bool:
    """Whether TensorRT and a GPU are here."""
    try:
        from quantkit.backends.tensorrt.device import open_device
        from quantkit.backends.tensorrt.versions import tensorrt

        tensorrt()
        open_device()
    except BackendError:
        return False
    return True


def blocks(page: Path, language: str) -> Iterator[str]:
    """The code blocks of a language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with the bundled data and nothing else."""
    shutil.copytree(
        ROOT / "calibration_data",
        tmp_path / "calibration_data",
        ignore=shutil.ignore_patterns("*.calib*", "*.stats.*", "*.int8.onnx"),
    )
    return tmp_path


def environment() -> dict[str, str]:
    """The environment in which `quantkit` is the one under test, and messages are in English."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def run(command: str, folder: Path, **variables: str) -> str:
    """What a shell command prints, with its exit code if it is not 0."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout + (f"[{done.returncode}]\n" if done.returncode else "")


SHELL = frozenset("|<>;&$*?[]{}()~#!\"'`\\")
"""What a shell would change in a line."""
QUOTED = re.compile(r"(?<= )(?:'[^']*'|\"[^\"$`\\]*\")(?= |$)")
"""A word that it leaves alone."""


def run_quickly(command: str, folder: Path) -> str:
    """What a command prints, as `run` says it; quantkit needs no process of its own for that."""
    if into := re.match(r"cd (\w+) && ", command):
        return run_quickly(command[into.end() :], folder / into[1])
    if not command.startswith("quantkit ") or SHELL & set(QUOTED.sub("", command)):
        return run(command, folder)
    printed, code = transcript_in(folder, shlex.split(command)[1:])
    return printed + (f"[{code}]\n" if code else "")


def transcript(block: str) -> Iterator[tuple[str, str]]:
    """Commands of a console block, each with what it should print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


DECIBELS = re.compile(r"(?<=\s)(\d+\.\d)(?=\s)")


def neighbours(figure: str) -> str:
    """A pattern of a figure and of those that are a tenth less and more."""
    return "|".join(re.escape(f"{float(figure) + tenths / 10:.1f}") for tenths in (-1, 0, 1))


def line_pattern(line: str) -> str:
    """A pattern of a line."""
    parts = DECIBELS.split(line)  # every other one is a figure
    return "".join(f"(?:{neighbours(p)})" if index % 2 else re.escape(p) for index, p in enumerate(parts))


def matches(expected: str, printed: str) -> bool:
    """Whether `printed` is `expected`, with `...` standing for any lines, and decibels that may move by a tenth."""
    pattern = "".join(
        "(?:.*\n)*?" if line == "...\n" else line_pattern(line) for line in expected.splitlines(keepends=True)
    )
    return re.fullmatch(pattern, printed) is not None


def test_decibels_may_move_by_a_tenth_and_nothing_else_may() -> None:
    assert matches("...\nmodel  98.50%  36.7  14/14\n", "one\ntwo\nmodel  98.50%  36.8  14/14\n")
    assert not matches("model  98.50%  36.7  14/14\n", "model  98.50%  36.9  14/14\n")
    assert not matches("model  98.50%  36.7  14/14\n", "model  98.00%  36.7  14/14\n")
    assert not matches("TensorRT 10.3.0, 87.1% of it\n", "TensorRT 10.4.0, 87.1% of it\n")
    assert not matches("TensorRT 10.3.0, 87.1% of it\n", "TensorRT 10.3.0, 87.2% of it\n")


def pages_in_order() -> list[Path]:
    """The README, then the pages in the order of the site, then those that the site does not list."""
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    places = {f"docs/{name}": number for number, name in enumerate(listed)} | {"README.md": -1}
    return sorted(PAGES, key=lambda page: places.get(page.relative_to(ROOT).as_posix(), len(places)))


def fault_of_block(language: str, block: str, folder: Path) -> str:
    """Run a block; return what is wrong with what it prints, empty if nothing is."""
    if language == "python":
        (folder / "block.py").write_text(block, encoding="utf-8")
        printed = run(f"{sys.executable} -W error block.py", folder)
        return printed if "Traceback" in printed or printed.endswith("]\n") else ""
    for command, expected in transcript(block):
        printed = run_quickly(command, folder)
        if not matches(expected, printed):
            return f"$ {command}\nprints\n{printed}\nbut the page says\n{expected}"
    return ""


@pytest.mark.skipif(has_gpu(), reason="the pages show a machine without TensorRT")
def test_who_reads_the_pages_in_order_sees_what_they_show(scratch: Path) -> None:
    """Every block of every page, in one folder: what an earlier page left there stops no later one."""
    faults = []
    for page in pages_in_order():
        for language, block in re.findall(FENCE_HERE, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            if fault := fault_of_block(language, block, scratch):
                faults.append(f"{page.name}: {fault}")
    assert not faults, "\n\n".join(faults)


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="no GPU with TensorRT")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_on_a_gpu_is_what_happens(page: Path, scratch: Path) -> None:
    for language, block in re.findall(
        r"^```(console|python) gpu\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        if language == "python":
            (scratch / "block.py").write_text(block, encoding="utf-8")
            printed = run(f"{sys.executable} block.py", scratch)
            assert "Traceback" not in printed, printed
            assert not printed.endswith("]\n"), printed
            continue
        for command, expected in transcript(block):
            printed = run(command, scratch, QUANTKIT_BACKEND="auto")
            assert matches(expected, without_warnings(printed)), f"$ {command}\nprints\n{printed}\nnot\n{expected}"


FENCE_HERE = r"^```(console|python)\n(.*?)^```$"
"""Blocks that run everywhere."""
FRAMEWORKS = {
    "torch": ("torch", "onnxscript"),
    "tensorflow": ("tensorflow", "tf2onnx"),
    "rtx": ("tensorrt_rtx",),
    "ray": ("ray",),
}
FENCE = r"^```(console|python) {}(?: (\S+))?\n(.*?)^```$"


def framework_blocks(page: Path, framework: str) -> list[tuple[str, str, str]]:
    """Language, file name and text of the blocks that need a framework."""
    found = re.findall(FENCE.format(framework), page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [(language, name or "block.py", block) for language, name, block in found]


WITH_FRAMEWORKS = [(page, framework) for page in PAGES for framework in FRAMEWORKS if framework_blocks(page, framework)]
WITHOUT_CLUSTER = [(page, framework) for page, framework in WITH_FRAMEWORKS if framework != "ray"]
"""Pages for whose framework a process will do; those with Ray are in tests/ray, where a cluster is there already."""
named = pytest.mark.parametrize(("page", "framework"), WITH_FRAMEWORKS, ids=lambda value: getattr(value, "name", value))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "framework"), WITHOUT_CLUSTER, ids=lambda value: getattr(value, "name", value))
def test_what_a_page_shows_with_a_framework_is_what_happens(page: Path, framework: str, scratch: Path) -> None:
    for library in FRAMEWORKS[framework]:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: pip install '.[{framework}]'")
    refuse_other_outputs(page, framework, scratch)


def refuse_other_outputs(page: Path, framework: str, folder: Path, **variables: str) -> None:
    """Run the blocks that need a framework: they do what the page shows."""
    for language, name, block in framework_blocks(page, framework):
        if language == "python":
            (folder / name).write_text(block, encoding="utf-8")
            printed = run(f"{sys.executable} {name}", folder, **variables)
            assert "Traceback" not in printed, printed
            assert not printed.endswith("]\n"), printed
            continue
        for command, expected in transcript(block):
            printed = run(command, folder, **variables)
            assert matches(expected, printed), f"$ {command}\nprints\n{printed}\nbut the page says\n{expected}"


@named
def test_blocks_for_a_framework_are_well_formed(page: Path, framework: str) -> None:
    from quantkit.cli.application import app

    for language, name, block in framework_blocks(page, framework):
        if language == "python":
            compile(block, name, "exec")
            continue
        for command, _ in transcript(block):
            program, verb, *arguments = shlex.split(command)
            if program == "quantkit":
                app.commands[verb].make_context(verb, arguments)


def without_warnings(printed: str) -> str:
    """What is printed but for warnings, which depend on the GPU."""
    return "".join(line for line in printed.splitlines(keepends=True) if not line.startswith("warning: "))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_for_a_gpu_are_well_formed(page: Path) -> None:
    from quantkit.cli.application import app

    for block in (*blocks(page, "console gpu"), *blocks(page, "console elsewhere")):
        for command, _ in transcript(block):
            program, verb, *arguments = shlex.split(command)
            assert program == "quantkit"
            app.commands[verb].make_context(verb, arguments)
    for block in blocks(page, "python gpu"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_on_a_page_is_a_spec(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        (tmp_path / "spec.toml").write_text(block, encoding="utf-8")
        load_preprocess(tmp_path / "spec.toml")


def test_the_readme_begins_with_two_commands(scratch: Path) -> None:
    """The gate runs them with pip; here what follows the installation."""
    first = next(blocks(ROOT / "README.md", "sh")).splitlines()
    assert len(first) == 2
    printed = run(first[0].partition("&& ")[2], scratch)
    assert "wrote  calibration_data/model.calib\n" in printed
    assert first[1].endswith("&& pytest")
