"""Blocks of the pages that need onnxruntime's CUDA provider run here too, on a GPU that is this process."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from quantkit.backends.onnxruntime import inference
from quantkit.cli import invoke
from tests.docs.test_documents import PAGES, ROOT, matches, transcript
from tests.support.fake_cuda import install_fake_cuda

BLOCK = re.compile(r"^```console cuda\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(page, block) for page in PAGES for block in BLOCK.findall(page.read_text(encoding="utf-8"))]


def test_there_are_such_blocks() -> None:
    assert BLOCKS


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=lambda value: getattr(value, "name", ""))
def test_a_block_prints_what_the_page_shows(
    page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "calibration_data", tmp_path / "calibration_data")
    monkeypatch.chdir(tmp_path)
    install_fake_cuda(monkeypatch)
    monkeypatch.setattr(inference, "note_operators_on_cpu", lambda *_: ())  # here all of them run there
    for command, expected in transcript(block):
        program, *arguments = shlex.split(command)
        assert program == "quantkit"
        assert invoke(arguments) == 0
        printed = "".join(capfd.readouterr())
        assert matches(expected, printed), printed
